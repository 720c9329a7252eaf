"""Graphs on CPUs that this machine emulates: qemu's, and WebAssembly by Node.js."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from irc.backends.llvm.files.aot import save
from irc.graph import Graph
from irc.passes.schedule.fuse_kernels import FuseKernels
from irc.passes.schedule.plan import PlanMemory
from irc.types import Array

EMULATED = {
    "aarch64": ("aarch64-linux-musl", "qemu-aarch64", "cortex-a53"),
    "aarch64+dotprod": ("aarch64-linux-musl", "qemu-aarch64", "cortex-a76"),
    "armv7": ("arm-linux-musleabihf", "qemu-arm", "cortex-a7"),
    "wasm32": ("wasm32-freestanding", "node", ""),
    "wasm32+relaxed-simd": ("wasm32-freestanding", "node", ""),
}
"""zig's triple, the emulator, and the CPU that it is to be."""
PROGRAM = """
#include "net.h"
#include <stdio.h>
static _Alignas(64) unsigned char bytes[{total} + NET_WORKSPACE_BYTES];
int main(void) {{
  FILE *file = fopen("in", "rb");
  if (!file || fread(bytes, 1, {given}, file) != {given}) return 1;
  int status = net_run({pointers}, bytes + {total});
  fwrite(bytes + {given}, 1, {total} - {given}, stdout);
  return status;
}}
"""
PAGE = """
import fs from "node:fs";
const { instance } = await WebAssembly.instantiate(fs.readFileSync("net.wasm"), {});
const { memory, __heap_base, net_run } = instance.exports;
const bytes = Math.ceil(__heap_base.value / 64) * 64;
memory.grow(Math.ceil((bytes + %(total)d + %(workspace)d) / 65536));
const given = fs.readFileSync("in");
new Uint8Array(memory.buffer).set(given, bytes);
process.exitCode = net_run(%(pointers)s, bytes + %(total)d);
process.stdout.write(new Uint8Array(memory.buffer, bytes + %(given)d, %(total)d - %(given)d));
"""
ALIGNED = 64


def run_emulated(
    graph: Graph, feeds: Mapping[str, Array], target: str, folder: Path
) -> tuple[dict[str, Array], list[str]]:
    """The outputs of an integer graph on an emulated CPU, and its kernels' names. Skips the test
    where an emulator is missing."""
    triple, emulator, cpu = EMULATED[target]
    found = shutil.which(emulator)
    if found is None or importlib.util.find_spec("ziglang") is None:
        pytest.skip(f"{emulator} and ziglang are needed")
    save(PlanMemory().run(FuseKernels().run(graph)), folder, "net", target, emit=["a", "o"])
    manifest = json.loads((folder / "net.json").read_text())
    places, given, total = _places(graph)
    (folder / "in").write_bytes(_laid_out(graph, feeds, given))
    numbers = {
        "given": given, "total": total, "workspace": manifest["workspace_bytes"],
        "pointers": ", ".join(f"(void *)(bytes + {p})" for p in places),
    }  # fmt: skip
    if emulator == "node":
        pointers = ", ".join(f"bytes + {p}" for p in places)
        (folder / "page.mjs").write_text(PAGE % {**numbers, "pointers": pointers})
        _zig(folder, "wasm-ld", "--no-entry", "--export=net_run", "--export=__heap_base", "net.o",
             "-o", "net.wasm")  # fmt: skip
        command = [found, *_flags(found, target), "page.mjs"]
    else:
        (folder / "main.c").write_text(PROGRAM.format(**numbers))
        _zig(folder, "cc", "-target", triple, "-static", "-O1", "main.c", "libnet.a", "-o", "main")
        command = [found, "-cpu", cpu, "./main"]
    made = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=120).stdout
    results = {}
    for name, v, place in zip(
        graph.output_names, graph.outputs, places[len(graph.inputs) :], strict=True
    ):
        part = made[place - given : place - given + v.type.nbytes]
        results[name] = np.frombuffer(part, v.type.dtype.numpy).reshape(v.shape)
    return results, [k["kernel"] for k in manifest["kernels"]]


def _places(graph: Graph) -> tuple[list[int], int, int]:
    """Where each input and output lies, the bytes of all inputs, and of all."""
    places, end, given = [], 0, 0
    for i, v in enumerate((*graph.inputs, *graph.outputs)):
        places.append(end)
        end += -(-v.type.nbytes // ALIGNED) * ALIGNED
        given = end if i == len(graph.inputs) - 1 else given
    return places, given, end


def _laid_out(graph: Graph, feeds: Mapping[str, Array], given: int) -> bytes:
    laid = bytearray(given)
    for v, place in zip(graph.inputs, _places(graph)[0], strict=False):
        content = np.ascontiguousarray(feeds[v.name]).tobytes()
        laid[place : place + len(content)] = content
    return bytes(laid)


def _flags(node: str, target: str) -> list[str]:
    """What Node.js needs to be told: before version 21 relaxed SIMD is an experiment, in which V8's
    baseline compiler (Liftoff) adds dot products wrongly."""
    if "relaxed" not in target:
        return []
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major = int(told.strip().lstrip("v").partition(".")[0])
    return ["--experimental-wasm-relaxed-simd", "--no-liftoff"] if major < 21 else []


def _zig(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "ziglang", *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
