"""Shared libraries, by the system's C compiler or ziglang: deterministic, needing nothing."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from irc.backends.llvm.target import Target, host
from irc.errors import ToolError

FLAGS = ("-shared", "-nostdlib", "-fPIC")
LINKER_FLAGS = (
    "--build-id=none", "-z,noexecstack", "-z,relro", "-z,now", "-z,defs", "--hash-style=gnu",
)  # fmt: skip


def compiler(target: Target) -> list[str]:
    """The command that links for a target.

    `CC` if it is set, else `cc`, `gcc` or `clang`, for this machine's own kind; `ziglang` for
    others, or where there is no C compiler. Raises `ToolError` where there is neither.
    """
    native = target.arch == host().arch and target.system == host().system
    if native:
        for candidate in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
            words = shlex.split(candidate)
            if words and shutil.which(words[0]):
                return words
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", zig_triple(target)]
    what = "no C compiler (cc, gcc, clang)" if native else f"no linker for {target.triple}"
    raise ToolError(
        f"{what} was found to make a shared library: install one, or `pip install irc-nn[cross]`"
        " for ziglang, or leave `so` out of --emit"
    )


def linker(target: Target) -> list[str]:
    """The command that links shared libraries for a target; raises `ToolError` where the target
    has none of ours, or there is no such command."""
    if target.system != "linux":
        raise ToolError(
            f"target {target.name} has no shared libraries of ours: leave `so` out of --emit"
        )
    return compiler(target)


def zig_triple(target: Target) -> str:
    """The target as zig writes it: no vendor."""
    parts = target.triple.split("-")
    arch = "arm" if parts[0].startswith("armv7") else parts[0]
    return "-".join((arch, target.system, *parts[3:]))


def link_shared(
    objects: list[Path], output: Path, target: Target, *, threads: bool = False
) -> None:
    """Link position-independent objects into `output`, whose name becomes its soname. With
    `threads` it needs the system's C library, and stays in memory once it is loaded, for its
    threads sleep in its code.

    Raises `ToolError` where the target has no shared libraries, or the linker fails.
    """
    options = [f"-Wl,{flag}" for flag in (*LINKER_FLAGS, f"-soname,{output.name}")]
    names = [o.name for o in objects]
    libraries = ["-Wl,-z,nodelete", "-Wl,--as-needed", "-lpthread", "-lc"] if threads else []
    command = [*linker(target), *FLAGS, *options, "-o", output.name, *names, *libraries]
    run(command, output.parent)


def run(command: list[str], folder: Path) -> None:
    """Run a tool in a folder, so that no path gets into what it writes."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        message = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise ToolError(f"{command[0]} failed to link: {message}")
