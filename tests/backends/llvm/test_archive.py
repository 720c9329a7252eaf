"""Static libraries, as linkers of other systems take them."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from irc.backends.llvm.files.aot import save
from irc.backends.llvm.files.archive import Member, archive
from tests.backends.llvm.nets import scheduled, small_net

MAIN = """
#include "net.h"
static _Alignas(NET_WORKSPACE_ALIGN) unsigned char workspace[NET_WORKSPACE_BYTES];
int main(void) { return net_self_test(workspace); }
"""
SYSTEMS = {
    "aarch64-macos": "arm64-apple-macosx:apple-m1:",
    "x86_64-macos": "x86_64-apple-macosx:haswell:",
    "x86_64-windows-gnu": "x86_64-pc-windows-gnu:haswell:",
    "x86_64-freebsd": "x86_64-unknown-freebsd:haswell:",
}
"""Zig's names of systems, and targets for them."""
LONG = ("x86_64-macos", "x86_64-freebsd", "x86_64-windows-gnu")
"""Those whose archives and objects have the format of another's, and the one whose C library takes
a minute."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "system",
    # Zig builds each system's C library first, which takes most of the time.
    [pytest.param(s, marks=pytest.mark.long if s in LONG else ()) for s in SYSTEMS],
)
def test_programs_link_on_other_systems(system: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no ziglang")
    save(scheduled(small_net()), tmp_path, "net", SYSTEMS[system], emit=("a",))
    (tmp_path / "main.c").write_text(MAIN)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", system, "main.c", "libnet.a",
               "-o", "main"]  # fmt: skip
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("name", ["n.o", "ab.o", "abc.o", "abcd.o", "abcdefg.o", "x" * 40 + ".o"])
def test_darwin_contents_lie_at_multiples_of_8(name: str) -> None:
    content = b"\xcf\xfa\xed\xfe" + bytes(7)
    members = [Member(name, content, ("net_run", "net_self_test")), Member("b.o", content, ("b",))]
    made = archive(members, darwin=True)
    first = made.index(content)
    second = made.index(content, first + 1)
    assert first % 8 == second % 8 == len(made) % 8 == 0
    index = made.index(b"__.SYMDEF") + 12
    size = int.from_bytes(made[index : index + 4], "little")
    offered = list(struct.iter_unpack("<II", made[index + 4 : index + 4 + size]))
    strings = made[index + 8 + size :]
    assert [strings[at:].partition(b"\0")[0] for at, _ in offered] == [
        b"_net_run", b"_net_self_test", b"_b"
    ]  # fmt: skip
    assert [made[at : at + 3] for _, at in offered] == [b"#1/"] * 3
    assert [offered[0][1] < first, first < offered[2][1] < second] == [True, True]
