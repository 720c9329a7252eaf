"""Ahead of time: the files of a library, all of them or none."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irc.audit import runtime_symbols
from irc.backends.llvm.files.archive import Member, archive
from irc.backends.llvm.files.link import link_shared, linker
from irc.backends.llvm.kernels import select
from irc.backends.llvm.module.build import Code, generate_library
from irc.backends.llvm.module.header import cmake_config, header, pkg_config
from irc.backends.llvm.module.interface import check_name
from irc.backends.llvm.module.manifest import to_json
from irc.backends.llvm.target import Target, aim
from irc.backends.llvm.work import Chooser
from irc.errors import CompileError
from irc.graph import Graph
from irc.outputs import whole

KINDS = ("so", "a", "o", "ll", "s", "irc")
DEFAULT = ("so", "a", "o")


def save(
    graph: Graph,
    directory: str | Path,
    name: str,
    target: str = "host",
    *,
    emit: Sequence[str] | str | None = None,
    float_io: bool = True,
    threads: int = 1,
    optimize: str = "speed",
    choose: Chooser = select,
    notes: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Compile a scheduled graph into `directory`; returns the paths written.

    Header, manifest, CMake and pkg-config files always come; `emit` lists what else, of `KINDS`
    (default: `so`, `a`, `o`; without `so` where the target has no shared libraries). `threads` is
    how many do a run, the caller's and those of the library; code is to be fast or short by
    `optimize`, `speed` or `size`; `choose` chooses its kernels. `notes` are added to the manifest.
    Raises `CompileError` or `ToolError`, and then nothing is written.
    """
    aimed = aim(target, optimize)
    kinds = check(name, aimed, emit)
    code = generate_library(
        graph, aimed, name, float_io=float_io, threads=threads, choose=choose, notes=notes
    )
    with whole(Path(directory), leftovers(Path(directory), name)) as folder:
        write_files(folder, graph, code, kinds)
        names = sorted(p.name for p in folder.iterdir())
    return [Path(directory) / n for n in names]


def leftovers(directory: Path, name: str) -> list[Path]:
    """What an earlier `save` under the name left in a folder, as its manifest lists, relative to
    it: none of that may stand beside another header. Models, in `.irc` files, stay: a library may
    have been compiled from them."""
    try:
        known = json.loads((directory / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(known, dict) or known.get("name") != name or "irc" not in known:
        return []
    listed = known.get("files")
    if not isinstance(listed, list):
        return []
    names = [f"{name}.{ending}" for ending in ("h", "json", "pc", "ll", "s", "o")]
    names += [f"{name}Config.cmake", f"lib{name}.a", f"lib{name}.so"]
    return [Path(n) for n in names if n in listed]


def check(name: str, target: Target, emit: Sequence[str] | str | None) -> tuple[str, ...]:
    """The kinds of files that `save` will write. Raises `CompileError` or `ToolError` for what it
    would refuse of any graph: names that C can't have, kinds that don't exist, no linker."""
    check_name(name)
    if isinstance(emit, str):
        emit = [kind.strip() for kind in emit.split(",")]
    kinds = tuple(emit) if emit is not None else DEFAULT[target.system != "linux" :]
    unknown = [k for k in kinds if k not in KINDS]
    if unknown:
        raise CompileError(f"can't emit {unknown}: there are {', '.join(KINDS)}")
    if "so" in kinds:
        linker(target)
    return kinds


def write_files(folder: Path, graph: Graph, code: Code, kinds: Sequence[str]) -> None:
    """Write every file into a folder of its own; the manifest lists them, besides what it says
    inside of the library, which does not depend on what stands beside it."""
    name = code.interface.name
    (folder / f"{name}.h").write_text(header(code.interface, float_io=code.float_io))
    (folder / f"{name}Config.cmake").write_text(cmake_config(code.interface, kinds))
    (folder / f"{name}.pc").write_text(pkg_config(code.interface))
    if "irc" in kinds:
        from irc.text import write

        write(graph, folder / f"{name}.irc")
    _write_code(folder, code, kinds)
    path = folder / f"{name}.json"
    files = sorted({path.name, *(p.name for p in folder.iterdir())})
    path.write_text(to_json({**code.manifest, "files": files}))


def _write_code(folder: Path, code: Code, kinds: Sequence[str]) -> None:
    name = code.interface.name
    if "ll" in kinds:
        (folder / f"{name}.ll").write_text(code.text)
    if not {"so", "a", "o", "s"} & set(kinds):
        return
    module, machine = code.optimized()
    if "s" in kinds:
        (folder / f"{name}.s").write_text(machine.emit_assembly(module))
    content = bytes(machine.emit_object(module))
    path = folder / f"{name}.o"
    path.write_bytes(content)
    _tell_needs(path)
    if "a" in kinds:
        member = Member(f"{name}.o", content, symbols(code))
        (folder / f"lib{name}.a").write_bytes(archive([member], darwin=code.target.is_macho))
    if "so" in kinds:
        shared = folder / f"lib{name}.so"
        link_shared([path], shared, code.target, threads=code.interface.threads > 1)
    if "o" not in kinds:
        path.unlink()


def _tell_needs(path: Path) -> None:
    """Warn of what the CPU lacks, so that the library does not stand alone."""
    if needed := runtime_symbols(path):
        warnings.warn(
            f"{path.name} calls {', '.join(needed)} for arithmetic that the CPU lacks: link the"
            " compiler's runtime library, libgcc or compiler-rt",
            stacklevel=2,
        )


def symbols(code: Code) -> list[str]:
    """The library's public symbols."""
    edge = ["run_f32"] if code.float_io else []
    functions = ["run", "run_parallel", *edge, "self_test", "manifest"]
    functions += ["reset"] if code.interface.states else []
    functions += ["threads_stop"] if code.interface.threads > 1 else []
    return [f"{code.interface.name}_{f}" for f in functions]
