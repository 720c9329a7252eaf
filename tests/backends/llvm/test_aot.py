"""The files of a library: same bits, same bytes, nothing undefined, all or none."""

import ctypes
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from irc.backends.llvm import open_library, save
from irc.backends.llvm.files.link import zig_triple
from irc.backends.llvm.host.invoke import workspace_array
from irc.backends.llvm.module.selftest import checksum
from irc.backends.llvm.target import NAMED
from irc.errors import DataError, IRCError, ToolError
from irc.graph import Graph, evaluate
from tests.backends.llvm.nets import random_inputs, small_net, tiny_net
from tests.irc.test_audit_objects import assert_object_and_archive_keep_their_promises

FILES = ["libnet.a", "libnet.so", "net.h", "net.json", "net.o", "net.pc", "netConfig.cmake"]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_net()


@pytest.fixture(scope="module")
def folder(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("library")
    assert [p.name for p in save(graph, made, "net")] == FILES
    return made


def test_the_library_gives_the_reference_bits(graph: Graph, folder: Path) -> None:
    inputs = random_inputs(graph)
    got, wanted = open_library(folder / "libnet.so")(inputs), evaluate(graph, inputs)
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])


def test_the_float_edge_is_the_one_in_python(graph: Graph, folder: Path) -> None:
    library = open_library(folder / "libnet.so")
    x = np.random.default_rng(2).normal(0, 8, graph.inputs[0].shape).astype(np.float32)
    x.flat[:6] = [np.nan, np.inf, -np.inf, 0.25, 3e38, 1e-40]  # 0.25 / 0.1 is a tie
    got, wanted = library.run_f32({"x": x}), library({"x": x})
    for name in wanted:
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], wanted[name])


def test_ties_round_to_even(tmp_path: Path) -> None:
    graph = tiny_net()
    save(graph, tmp_path, "net", emit=["so"])
    library = open_library(tmp_path / "libnet.so")
    x = (np.arange(37, dtype=np.float32) - 5) * np.float32(0.05)
    np.testing.assert_array_equal(library.run_f32({"x": x})["y"], library({"x": x})["y"])


def test_what_an_earlier_library_of_the_name_left_goes(tmp_path: Path) -> None:
    (tmp_path / "net.npz").write_text("calibration")
    (tmp_path / "libother.a").write_text("")
    save(small_net(), tmp_path, "net", "x86-64-v3", emit=["a", "s", "ll"])
    save(tiny_net(), tmp_path, "net", "x86-64-v3", emit=["o"])
    left = {p.name for p in tmp_path.iterdir()} - {"net.npz", "libother.a"}
    assert left == {"net.h", "net.json", "net.o", "net.pc", "netConfig.cmake"}
    assert json.loads((tmp_path / "net.json").read_text())["files"] == sorted(left)


def test_what_no_earlier_library_wrote_stays(tmp_path: Path) -> None:
    for made_by in ("hand", "an earlier version"):
        save(small_net(), tmp_path, "net", "x86-64-v3", emit=["o", "irc"])
        others = [tmp_path / name for name in ("net.s", "libnet.a", "net.irc", "net.npz")]
        for path in others:
            path.write_text(made_by)
        if made_by != "hand":
            manifest = json.loads((tmp_path / "net.json").read_text())
            others += [tmp_path / "net.o"]
            del manifest["files"]
            (tmp_path / "net.json").write_text(json.dumps(manifest))
        save(small_net(), tmp_path, "net", "x86-64-v3", emit=["ll"])
        assert [p for p in others if not p.exists()] == []


def test_files_of_others_under_the_name_stay(tmp_path: Path) -> None:
    (tmp_path / "libnet.a").write_text("")
    (tmp_path / "net.json").write_text('{"name": "net"}')
    save(tiny_net(), tmp_path, "net", "x86-64-v3", emit=["o"])
    assert (tmp_path / "libnet.a").exists()


@pytest.mark.parametrize("make", [small_net, tiny_net])
def test_self_test_sees_wrong_constants(make: Any, tmp_path: Path) -> None:
    graph = make()
    save(graph, tmp_path, "net", emit=["so"])
    path = tmp_path / "libnet.so"
    assert open_library(path).self_test()
    content = path.read_bytes()
    seen = []
    for i, v in enumerate(graph.constants):  # a kernel may keep some in another form
        first = v.array.tobytes()[:16]  # the other rows of a table may be differences
        if v.array.ndim == 1 and first in content:
            wrong = tmp_path / f"wrong{i}" / path.name
            wrong.parent.mkdir()
            wrong.write_bytes(content.replace(first, bytes(byte ^ 0x40 for byte in first)))
            seen.append(not open_library(wrong).self_test())
    assert any(seen), seen


def test_any_single_byte_changes_the_checksum() -> None:
    content = bytearray(np.random.default_rng(0).bytes(300))
    sums = {checksum(bytes(content))}
    for i in range(300):
        content[i] ^= 1 << (i % 8)
        sums.add(checksum(bytes(content)))
    assert len(sums) == 301


def test_null_and_misaligned_pointers_are_refused(graph: Graph, folder: Path) -> None:
    library = open_library(folder / "libnet.so")
    run = library._run
    inputs = random_inputs(graph)
    outputs = [np.empty(t.shape) for t in library.output_types.values()]
    workspace = workspace_array(library.workspace_bytes)
    pointers = [inputs["x"].ctypes.data, *(o.ctypes.data for o in outputs), workspace.ctypes.data]
    assert run(*pointers) == 0
    for i in range(len(pointers)):
        assert run(*[0 if i == j else p for j, p in enumerate(pointers)]) == -1
    assert run(*pointers[:-1], pointers[-1] + 8) == -2
    assert library._function("self_test", 1)(0) == -1


def test_equal_bytes_for_equal_graphs(graph: Graph, folder: Path, tmp_path: Path) -> None:
    save(small_net(), tmp_path, "net")
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_manifest_is_inside_and_beside(folder: Path) -> None:
    library = open_library(folder / "libnet.so")
    assert {**library.manifest, "files": FILES} == json.loads((folder / "net.json").read_text())
    assert [e["name"] for e in library.manifest["outputs"]] == ["first", "second"]


def test_nothing_is_undefined_and_nothing_writable(folder: Path) -> None:
    for name in ("net.o", "libnet.so"):
        with (folder / name).open("rb") as file:
            assert undefined(ELFFile(file)) == []
    with (folder / "net.o").open("rb") as file:
        elf = ELFFile(file)
        levels = open_library(folder / "libnet.so").manifest["levels"]
        assert writable(elf) == ([".bss"] if levels else [])
        public = sorted(s.name for s in symbols(elf) if s["st_info"]["bind"] == "STB_GLOBAL")
    assert public == [
        "net_manifest", "net_run", "net_run_f32", "net_run_parallel", "net_self_test",
    ]  # fmt: skip


def symbols(elf: ELFFile) -> list[Any]:
    table = elf.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    return list(table.iter_symbols())


def undefined(elf: ELFFile) -> list[str]:
    return [s.name for s in symbols(elf) if s["st_shndx"] == "SHN_UNDEF" and s.name]


def writable(elf: ELFFile) -> list[str]:
    """Sections that occupy memory and may be written."""
    return [s.name for s in elf.iter_sections() if s["sh_flags"] & 3 == 3 and s["sh_size"]]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if "+" in n else ()) for n in sorted(NAMED)]
)
def test_every_target_gets_an_object_that_needs_nothing(
    name: str, graph: Graph, tmp_path: Path
) -> None:
    save(graph, tmp_path, "net", name, emit=["o", "a"])
    content = (tmp_path / "net.o").read_bytes()
    levels = json.loads((tmp_path / "net.json").read_text())["levels"]
    if NAMED[name].is_elf:
        elf = ELFFile(io.BytesIO(content))
        assert undefined(elf) == []
        assert writable(elf) == ([".bss"] if levels else [])
    else:
        assert content.startswith(b"\0asm")
        assert b"memcpy" not in content
        assert b"memset" not in content
    assert_object_and_archive_keep_their_promises(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cpu", "level"),
    [("Nehalem", "x86-64-v2"), ("SandyBridge", "x86-64-v2"), ("Haswell", "x86-64-v3"),
     ("EPYC", "x86-64-v3"), ("max", "x86-64-v3")],
)  # fmt: skip
def test_a_library_for_all_levels_takes_what_the_cpu_runs(
    tmp_path: Path, cpu: str, level: str
) -> None:
    """The emulator writes down which functions it translates: those of one level alone."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-x86_64 is not installed")
    save(small_net(), tmp_path, "a", "x86-64", emit=["a"])
    save(tiny_net(), tmp_path, "b", "x86-64", emit=["a"])
    (tmp_path / "main.c").write_text(PROGRAM)
    command = ["gcc", "-std=c11", "main.c", "-o", "main", "liba.a", "libb.a"]
    subprocess.run(command, cwd=tmp_path, check=True)
    run = [emulator, "-cpu", cpu, "-d", "in_asm", "-D", "translated", "./main"]
    assert subprocess.check_output(run, cwd=tmp_path) == b"0 0\n"
    translated = set(re.findall(r"^IN: ([ab])_level(\d)_", (tmp_path / "translated").read_text(),
                                re.MULTILINE))  # fmt: skip
    levels = json.loads((tmp_path / "a.json").read_text())["levels"]
    assert translated == {(name, str(levels.index(level))) for name in "ab"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aarch64", "aarch64+dotprod", "armv7", "riscv64", "riscv64+v"])
def test_other_cpus_give_the_same_bits(name: str, tmp_path: Path) -> None:
    target = NAMED[name]
    arch = "arm" if target.arch.startswith("arm") else target.arch
    emulator = shutil.which(f"qemu-{arch}")
    if emulator is None or importlib.util.find_spec("ziglang") is None:
        pytest.skip("qemu-user and ziglang are needed")
    save(small_net(), tmp_path, "a", name, emit=["so", "a"])
    save(tiny_net(), tmp_path, "b", name, emit=["a"])
    (tmp_path / "main.c").write_text(PROGRAM)
    triple = zig_triple(target).replace("gnu", "musl")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-static", "main.c",
               "-o", "main", "liba.a", "libb.a"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True)
    cpu = "rv64,v=true,vext_spec=v1.0" if arch == "riscv64" else "max"
    assert subprocess.check_output([emulator, "-cpu", cpu, "./main"], cwd=tmp_path) == b"0 0\n"


PROGRAM = """
#include "a.h"
#include "b.h"
#include <stdint.h>
#include <stdio.h>
static _Alignas(64) uint8_t workspace[A_WORKSPACE_BYTES > B_WORKSPACE_BYTES
                                      ? A_WORKSPACE_BYTES : B_WORKSPACE_BYTES];
int main(void) {
  printf("%d %d\\n", a_self_test(workspace), b_self_test(workspace));
  return 0;
}
"""


@pytest.mark.parametrize("kind", ["a", "so"])
def test_two_models_in_one_program(graph: Graph, tmp_path: Path, kind: str) -> None:
    save(graph, tmp_path, "a", emit=[kind])
    save(tiny_net(), tmp_path, "b", emit=[kind])
    (tmp_path / "main.c").write_text(PROGRAM)
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "main.c", "-o", "main",
               f"liba.{kind}", f"libb.{kind}", "-Wl,-rpath,$ORIGIN"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.check_output(["./main"], cwd=tmp_path) == b"0 0\n"


@pytest.mark.slow
def test_valgrind_has_nothing_to_say(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    save(small_net(), tmp_path, "a", "x86-64-v3", emit=["a"])
    save(tiny_net(), tmp_path, "b", "x86-64-v3", emit=["a"])
    (tmp_path / "main.c").write_text(PROGRAM)
    command = ["gcc", "-std=c11", "-g", "main.c", "-o", "main", "liba.a", "libb.a"]
    subprocess.run(command, cwd=tmp_path, check=True)
    checked = ["valgrind", "-q", "--error-exitcode=9", "./main"]
    assert subprocess.check_output(checked, cwd=tmp_path) == b"0 0\n"


def test_what_is_not_asked_for_is_not_there(graph: Graph, tmp_path: Path) -> None:
    save(graph, tmp_path, "net", emit=["ll", "s", "irc"], float_io=False)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"net.h", "net.json", "net.pc", "netConfig.cmake", "net.ll", "net.s", "net.irc",
                     "net.npz"}  # fmt: skip
    code = (tmp_path / "net.ll").read_text()
    assert "run_f32" not in code
    assert not any(word in code for word in ("float", "double"))


def test_kinds_may_be_one_text(graph: Graph, tmp_path: Path) -> None:
    save(graph, tmp_path, "net", emit="so, o")
    assert {p.suffix for p in tmp_path.iterdir()} == {".so", ".o", ".h", ".json", ".pc", ".cmake"}


@pytest.mark.parametrize(
    "options",
    [{"name": "int"}, {"emit": ["exe"]}, {"target": "z80"}, {"target": "wasm32", "emit": ["so"]}],
)
def test_errors_leave_nothing_behind(graph: Graph, tmp_path: Path, options: Any) -> None:
    with pytest.raises(IRCError):
        save(graph, tmp_path / "deep" / "er", **{"name": "net", **options})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match="can't write"):
        save(graph, tmp_path / "file" / "deeper", "net", emit=["o"])
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(ToolError, match="can't write"):
            save(graph, tmp_path / "new", "net", emit=["o"])


def test_no_compiler_is_a_clear_error(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolError, match="ziglang"):
        save(graph, tmp_path / "out", "net")
    assert not (tmp_path / "out").exists()


def test_what_is_no_library_of_ours(tmp_path: Path, graph: Graph, folder: Path) -> None:
    with pytest.raises(ToolError, match="there is no library"):
        open_library(tmp_path / "libnet.so")
    (tmp_path / "libnet.so").write_bytes(b"no library")
    with pytest.raises(ToolError, match="can't load"):
        open_library(tmp_path / "libnet.so")
    shutil.copy(folder / "libnet.so", tmp_path / "libother.so")
    with pytest.raises(ToolError, match="other_manifest"):
        open_library(tmp_path / "libother.so")
    with pytest.raises(DataError, match="takes"):
        open_library(folder / "libnet.so")({"y": np.zeros(1)})


def test_a_library_that_was_compiled_anew_is_read_anew(tmp_path: Path) -> None:
    save(small_net(), tmp_path, "net", emit=["so"])
    first = open_library(tmp_path / "libnet.so")
    save(tiny_net(), tmp_path, "net", emit=["so"])
    second = open_library(tmp_path / "libnet.so")
    assert (first.manifest["graph"], second.manifest["graph"]) == ("small", "tiny")
    assert first.self_test()
    assert second.self_test()
    assert isinstance(first._library, ctypes.CDLL)
