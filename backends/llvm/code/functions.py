"""LLVM functions with the attributes that a standalone library needs, and module text."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from irc.backends.llvm.target import Dot, Target

PTR = ir.PointerType()
I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


class _Attributes(ir.values.FunctionAttributes):  # type: ignore[misc]
    """llvmlite's, and those written as strings: `"no-builtins"`, `"target-cpu"="…"`."""

    def add(self, name: str) -> None:
        """Strings are LLVM's business, words are checked."""
        if name.startswith('"'):
            set.add(self, name)
        else:
            super().add(name)


def declare(
    module: Any, name: str, arguments: list[Any], target: Target, *, result: Any = None
) -> Any:
    """An internal function, not inlined, that unwinds nothing and calls nothing from outside."""
    function = ir.Function(module, ir.FunctionType(result or ir.VoidType(), arguments), name)
    # Without builtins a loop that copies or fills can't become a call of memcpy or memset; without
    # tables no chain of comparisons can become a jump that the audit can't follow.
    fixed = ("nounwind", "noinline", '"no-builtins"', '"no-jump-tables"="true"')
    function.attributes = _Attributes(fixed)
    function.attributes.add(f'"target-cpu"="{target.cpu}"')
    features = [target.features] if target.features else []
    if target.dot is Dot.VPDPBUSD:
        # Else LLVM takes vpdpwssd apart, for a latency that many accumulators hide.
        features.append("+fast-dpwssd")
    if features:
        function.attributes.add(f'"target-features"="{",".join(features)}"')
    if target.small:
        function.attributes.add("optsize")
    if target.vector_bytes == 64:
        function.attributes.add('"prefer-vector-width"="512"')
    function.linkage = "internal"
    return function


def export(module: Any, name: str, arguments: list[Any], target: Target, result: Any = I32) -> Any:
    """A function of the library's interface."""
    function = declare(module, name, arguments, target, result=result)
    function.linkage = ""
    function.attributes.discard("noinline")
    return function


def offset(builder: Any, pointer: Any, nbytes: int) -> Any:
    """`pointer` moved by a constant number of bytes."""
    if nbytes == 0:
        return pointer
    return builder.gep(pointer, [ir.Constant(I64, nbytes)], inbounds=True, source_etype=I8)


def bytes_global(module: Any, name: str, size: int, align: int = 64) -> Any:
    """A private read-only array of bytes. Its content is set by `define_bytes` in the text:
    llvmlite's own printing would take minutes for tens of megabytes."""
    made: Any = ir.GlobalVariable(module, ir.ArrayType(I8, size), name)
    made.linkage = "internal"
    made.global_constant = True
    made.align = align
    return made


_ESCAPES = np.array([f"\\{byte:02x}".encode() for byte in range(256)], dtype="S3")


def define_bytes(name: str, content: bytes, align: int = 64) -> str:
    """The definition of a byte array as LLVM text."""
    text = _ESCAPES[np.frombuffer(content, np.uint8)].tobytes().decode("ascii")
    head = f'@"{name}" = internal unnamed_addr constant [{len(content)} x i8]'
    return f'{head} c"{text}", align {align}\n'


def module_text(module: Any, blobs: dict[str, tuple[bytes, int]]) -> str:
    """The module as text; `blobs` gives content and alignment of globals by name."""
    lines = [
        line
        for line in str(module).splitlines()
        if not any(line.startswith(f'@"{name}" =') for name in blobs)
    ]
    lines += [define_bytes(name, *content) for name, content in blobs.items()]
    return "\n".join(lines) + "\n"
