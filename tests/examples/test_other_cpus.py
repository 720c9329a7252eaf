"""The examples for microcontrollers and browsers, run under emulators on real images: every score
is the one that `irc.evaluate` gives. And the same for Linux on other CPUs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import irc
from irc import driver
from irc.graph import Graph
from irc.pixels import Pixels
from irc.types import Array

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGES = 3
pytestmark = pytest.mark.slow
needs_zig = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="no ziglang")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}")
    return found


@cache
def images() -> Array:
    with np.load(EXAMPLES / "data" / "fashion_test.npz") as data:
        return np.asarray(data["x"][:IMAGES])


@cache
def network() -> Graph:
    """The trained DS-CNN over camera pixels, as integers."""
    graph = irc.load(EXAMPLES / "models" / "fashion_dscnn.onnx")
    with np.load(EXAMPLES / "data" / "fashion_calibration.npz") as data:
        pixels = data["x"][:16].astype(np.float32)
    batch = np.moveaxis((pixels / 255 - 0.286) / 0.353, -1, 1)
    camera = driver.camera(irc.quantize(graph, batch), Pixels((0.286,), (0.353,)))
    return driver.integerize(camera)


@cache
def scores() -> list[list[int]]:
    """What `irc.evaluate` says, image by image."""
    (x,) = network().inputs
    made = (irc.evaluate(network(), {x.name: image[None]}) for image in images())
    return [[int(score) for score in next(iter(y.values())).reshape(-1)] for y in made]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def zig(*words: str) -> list[str]:
    return [sys.executable, "-m", "ziglang", *words]


def numbers(text: str) -> list[list[int]]:
    rows = re.findall(r"^image \d+:((?: -?\d+)+)", text, re.MULTILINE)
    return [[int(word) for word in row.split()] for row in rows]


def write_images(folder: Path) -> None:
    rows = ",\n".join("{" + ",".join(map(str, image.reshape(-1))) + "}" for image in images())
    (folder / "images.h").write_text(
        "#include <stdint.h>\n"
        f"#define IMAGES {IMAGES}\n"
        f"static const uint8_t images[IMAGES][NET_INPUT_SIZE] = {{{rows}}};\n"
    )


@needs_zig
@pytest.mark.parametrize(
    ("target", "machine"), [("cortex-m4", "mps2-an386"), ("cortex-m55", "mps3-an547")]
)
def test_microcontrollers(tmp_path: Path, target: str, machine: str) -> None:
    emulator = tool("qemu-system-arm")
    irc.compile(network(), target=target).save(tmp_path, "net", emit=("a",))
    write_images(tmp_path)
    board = EXAMPLES / "cortex_m"
    run(zig("cc", "-target", "thumb-freestanding-eabi", f"-mcpu={target.replace('-', '_')}",
            "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-I.",
            "-T", str(board / "board.ld"), str(board / "board.c"), str(board / "main.c"),
            "libnet.a", "-o", "app.elf"), tmp_path)  # fmt: skip
    text = run([emulator, "-M", machine, "-display", "none", "-monitor", "none", "-serial", "none",
                "-chardev", "stdio,id=text", "-semihosting-config", "enable=on,chardev=text",
                "-kernel", "app.elf"], tmp_path)  # fmt: skip
    assert text.startswith("self test: ok\n")
    assert numbers(text) == scores()


PAGE = """
import fs from "node:fs";
import { load } from "./net.mjs";
const net = await load(fs.readFileSync("net.wasm"), Number(process.argv[2]));
console.log(net.selfTest() ? "self test: ok" : "self test: wrong");
const pixels = fs.readFileSync("images.u8");
const size = pixels.length / Number(process.argv[3]);
for (let i = 0; i * size < pixels.length; i++) {
  const scores = new Int8Array(net.run(pixels.subarray(i * size, (i + 1) * size), 10));
  console.log(`image ${i}: ${[...scores].join(" ")}`);
}
"""


@needs_zig
def test_browsers(tmp_path: Path) -> None:
    node = tool("node")
    irc.compile(network(), target="wasm32").save(tmp_path, "net", emit=("o",))
    exports = [f"--export={n}" for n in ("net_run", "net_self_test", "__heap_base")]
    run(zig("wasm-ld", "--no-entry", *exports, "net.o", "-o", "net.wasm"), tmp_path)
    shutil.copy(EXAMPLES / "browser" / "net.mjs", tmp_path)
    (tmp_path / "page.mjs").write_text(PAGE)
    (tmp_path / "images.u8").write_bytes(images().tobytes())
    header = (tmp_path / "net.h").read_text()
    (workspace,) = re.findall(r"NET_WORKSPACE_BYTES (\d+)", header)
    text = run([node, "page.mjs", workspace, str(IMAGES)], tmp_path)
    assert text.startswith("self test: ok\n")
    assert numbers(text) == scores()


HOSTED = "#include <stdio.h>\nvoid put(const char *text) { fputs(text, stdout); }\n"
LINUX = {
    "aarch64": ("aarch64-linux-musl", "max"),
    "aarch64+dotprod": ("aarch64-linux-musl", "max"),
    "armv7": ("arm-linux-musleabihf", "max"),
    "riscv64": ("riscv64-linux-musl", "rv64"),
    "riscv64+v": ("riscv64-linux-musl", "rv64,v=true,vext_spec=v1.0"),
}
"""zig's triple, and qemu's CPU."""


@needs_zig
@pytest.mark.parametrize("target", LINUX)
def test_linux_on_other_cpus(tmp_path: Path, target: str) -> None:
    triple, cpu = LINUX[target]
    emulator = tool(f"qemu-{triple.partition('-')[0]}")
    irc.compile(network(), target=target).save(tmp_path, "net", emit=("a",))
    write_images(tmp_path)
    (tmp_path / "hosted.c").write_text(HOSTED)
    main = str(EXAMPLES / "cortex_m" / "main.c")
    run(zig("cc", "-target", triple, "-static", "-O2", "-I.", main, "hosted.c", "libnet.a",
            "-o", "app"), tmp_path)  # fmt: skip
    text = run([emulator, "-cpu", cpu, "./app"], tmp_path)
    assert text.startswith("self test: ok\n")
    assert numbers(text) == scores()
