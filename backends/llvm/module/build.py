"""A scheduled graph becomes one LLVM module: kernels, constants, and the C interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from llvmlite import binding, ir

from irc.backends.llvm.code.aarch64_constants import without_float_constants
from irc.backends.llvm.code.dispatch import asks, emit_asking, emit_dispatch
from irc.backends.llvm.code.functions import (
    I32,
    I64,
    PTR,
    bytes_global,
    declare,
    export,
    module_text,
    offset,
)
from irc.backends.llvm.code.repeated import emit_repeated
from irc.backends.llvm.kernels import select
from irc.backends.llvm.module.call import Call
from irc.backends.llvm.module.edge import emit_edge
from irc.backends.llvm.module.emit import Emitted, Emitter
from irc.backends.llvm.module.gc_pause import without_gc
from irc.backends.llvm.module.interface import ALIGN, Interface
from irc.backends.llvm.module.manifest import manifest, to_json
from irc.backends.llvm.module.pool import check_threads, pool_text
from irc.backends.llvm.module.selftest import (
    STORED,
    checksum,
    emit_checksum,
    emit_compare,
    emit_fill,
    golden_outputs,
)
from irc.backends.llvm.target import Target
from irc.backends.llvm.work import Chooser
from irc.errors import CompileError
from irc.graph import Graph
from irc.properties import require

OK, ERROR_NULL, ERROR_ALIGN = 0, -1, -2


@dataclass(frozen=True)
class Code:
    """A library before it is files: LLVM text, its interface, what it says of itself."""

    text: str
    interface: Interface
    target: Target
    manifest: dict[str, Any] = field(default_factory=dict)
    float_io: bool = False

    def optimized(self) -> Any:
        """The parsed module after LLVM's passes, and the target machine that it is meant for."""
        machine = self.target.machine()
        try:
            module = binding.parse_assembly(self.text)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"{self.interface.name}: LLVM rejects the code: {error}") from None
        options = binding.create_pipeline_tuning_options(speed_level=3)
        options.loop_unrolling = not self.target.small
        builder = binding.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        return without_float_constants(module, self.target), machine

    def object_code(self) -> bytes:
        """One relocatable object."""
        module, machine = self.optimized()
        return bytes(machine.emit_object(module))


@without_gc()
def generate(
    graph: Graph, target: Target, name: str, threads: int = 1, choose: Chooser = select
) -> Code:
    """Only `NAME_run` and `NAME_run_parallel`: what runs in process, on this CPU."""
    interface = Interface.of(graph, name)
    builder = _ModuleBuilder(graph, target, interface, threads, choose)
    builder.run()
    builder.run_parallel()
    return builder.code({}, float_io=False)


def generate_edge(interface: Interface, target: Target) -> Code:
    """`NAME_run_f32` alone, around a `NAME_run` that is linked to it."""
    module = _module(interface, target)
    arguments = [PTR] * (len(interface.ports) + 1)
    run = ir.Function(module, ir.FunctionType(I32, arguments), f"{interface.name}_run")
    function = export(module, f"{interface.name}_run_f32", arguments, target)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    builder.ret(emit_edge(builder, interface, target, function.args, run))
    return Code(module_text(module, {}), interface, target, {}, float_io=True)


@without_gc()
def generate_timed(
    graph: Graph, target: Target, name: str, threads: int = 1, choose: Chooser = select
) -> tuple[Code, Sequence[Call]]:
    """`NAME_timed(inputs…, outputs…, workspace, ticks)` in place of `NAME_run`, for the highest
    level of the target, and the calls whose ends it times."""
    interface = Interface.of(graph, name)
    builder = _ModuleBuilder(graph, target, interface, threads, choose, timed=True)
    function = builder._exported("timed", len(interface.ports) + 2)
    body = ir.IRBuilder(function.append_basic_block("entry"))
    body.call(builder.body, function.args)
    body.ret(ir.Constant(I32, OK))
    return builder.code({}, float_io=False), builder.calls.calls


@without_gc()
def generate_library(
    graph: Graph,
    target: Target,
    name: str,
    *,
    float_io: bool = True,
    threads: int = 1,
    choose: Chooser = select,
    notes: Mapping[str, Any] | None = None,
) -> Code:
    """The whole C interface: run, run_parallel, run_f32 (unless left out, or beyond the target's
    hardware), self_test, reset (where there are states), manifest."""
    interface = Interface.of(graph, name)
    builder = _ModuleBuilder(graph, target, interface, threads, choose, may_lack=True)
    float_io = float_io and target.hardware_double
    builder.run()
    builder.run_parallel()
    if float_io:
        builder.run_f32()
    builder.self_test()
    builder.reset()
    content = builder.describe(notes or {}, float_io=float_io)
    builder.manifest(to_json(content))
    return builder.code(content, float_io=float_io)


class _ModuleBuilder:
    def __init__(
        self, graph: Graph, target: Target, interface: Interface, threads: int, choose: Chooser,
        *, timed: bool = False, may_lack: bool = False,
    ) -> None:  # fmt: skip
        """A `timed` body takes one argument more, and so does its parallel form. The process
        `may_lack` the target's tiles."""
        check_threads(threads, target)
        require(graph, ("scheduled",), "code generation")
        self.graph = graph
        self.target = target
        self.levels = target.levels
        self.module = _module(interface, target)
        top = target.levels[-1] if target.levels else target
        self.emitter = Emitter(
            self.module, graph, top, interface.name, choose, asks=may_lack and target.tiles
        )
        self.emitters = self._emitted()
        self.levels = tuple(e.target for e in self.emitters) if len(self.emitters) > 1 else ()
        self.interface = interface.with_workspace(
            self.emitter.scratch_start + max(e.scratch for e in self.emitters),
            max(e.task_scratch for e in self.emitters),
            threads,
        )
        calls = [e.calling(self.interface.workspace) for e in self.emitters]
        self.calls = calls[-1]
        self.body = self._dispatched("body", [c.serial(timed=timed) for c in calls])
        self.parallel = self._dispatched("parallel", [c.parallel(timed=timed) for c in calls])
        self.pool = self._pool() if threads > 1 else ""
        constants = self.emitter.constants.content
        self.blobs: dict[str, tuple[bytes, int]] = {
            self.emitter.data.name: (constants, ALIGN)
        }

    @property
    def asks(self) -> bool:
        """Whether the code finds out at run time if it may use AMX."""
        return not self.levels and asks(self.module)

    def _pool(self) -> str:
        """The pool's text; the body becomes a run by the pool, which calls it or its parallel
        form."""
        name, body = self.interface.name, self.body
        self.body = declare(self.module, f"{name}_pool_run", [PTR] * len(body.args), self.target)
        self.body.linkage = ""
        return pool_text(name, self.interface.threads, self.target, body, self.parallel)

    def _emitted(self) -> list[Emitter]:
        """The kernels of each level, over one set of constants. Levels that differ by AMX alone
        share functions, and are one where no kernel uses it."""
        top, made = self.emitter, list[Emitter]()
        functions: dict[tuple[str, str], dict[str, Any]] = {}
        for number, level in enumerate(self.levels):
            same = functions.setdefault((level.cpu, level.without_tiles), {})
            before = len(same)
            emitter = replace(
                top, target=level, prefix=f"{top.prefix}_level{number}", functions=same,
                emitted=[], calls=[],
            )  # fmt: skip
            emitter.run()
            if not made or len(same) > before:
                made.append(emitter)
        if not made:
            top.run()
        return made or [top]

    def _dispatched(self, what: str, bodies: Sequence[Any]) -> Any:
        """One body per level, and the choice between them; or the only one, once it is known
        whether it may use AMX."""
        name = self.emitter.prefix
        if self.levels:
            levels = dict(zip(self.levels, bodies, strict=True))
            return emit_dispatch(self.module, name, what, levels)
        (body,) = bodies
        if not self.asks:
            return body
        return emit_asking(self.module, name, f"{what}_asking", self.emitter.target, body)

    @property
    def kernels(self) -> list[Emitted]:
        """What was emitted, for the highest level."""
        return self.emitters[-1].emitted

    def code(self, content: dict[str, Any], *, float_io: bool) -> Code:
        """The finished module."""
        text = module_text(self.module, self.blobs)
        if self.pool:
            declared = f'declare void @"{self.interface.name}_pool_run"('
            lines = (line for line in text.splitlines() if not line.startswith(declared))
            text = "\n".join((*lines, self.pool, ""))
        return Code(text, self.interface, self.target, content, float_io)

    def describe(self, notes: Mapping[str, Any], *, float_io: bool) -> dict[str, Any]:
        """The manifest's content."""
        levels = (self.target.untiled, self.target) if self.asks else self.levels
        facts = {
            "constant_bytes": self.emitter.constants.size,
            "functions": len({f.name for e in self.emitters for f in e.functions.values()}),
            "float_io": float_io,
            "levels": [level.name for level in levels],
        }
        return manifest(self.graph, self.interface, self.target, self.kernels, facts, notes)

    def run(self) -> None:
        """`int NAME_run(inputs…, outputs…, workspace)`: checks, then the body."""
        function = self._exported("run", len(self.interface.ports) + 1)
        builder = self._checked(function)
        builder.call(self.body, function.args)
        builder.ret(ir.Constant(I32, OK))

    def run_parallel(self) -> None:
        """`int NAME_run_parallel(inputs…, outputs…, workspace, executor)`: the same, on the threads
        of the host."""
        function = self._exported("run_parallel", len(self.interface.ports) + 2)
        builder = self._checked(function, workspace=-2)
        word = self.target.pointer_bits // 8
        call = offset(builder, function.args[-1], word)
        self._refuse_null(builder, [builder.load(call, typ=PTR, align=word)])
        builder.call(self.parallel, function.args)
        builder.ret(ir.Constant(I32, OK))

    def run_f32(self) -> None:
        """`int NAME_run_f32(…)`: the same with floats where a port is quantized."""
        function = self._exported("run_f32", len(self.interface.ports) + 1)
        builder = self._checked(function)
        emit_edge(builder, self.interface, self.target, function.args, self.body)
        builder.ret(ir.Constant(I32, OK))

    def self_test(self) -> None:
        """`int NAME_self_test(workspace)`: 0 if the outputs are the reference's, bit by bit."""
        function = self._exported("self_test", 1)
        builder = self._checked(function)
        (workspace,) = function.args
        places = [offset(builder, workspace, start) for start in self.interface.offsets]
        for number, port in enumerate(self.interface.inputs):
            emit_fill(builder, number, port, places[number])
        builder.call(self.body, [*places, workspace])
        outputs = places[len(self.interface.inputs) :]
        builder.ret(self._verdict(builder, outputs, golden_outputs(self.graph)))

    def _verdict(self, builder: Any, outputs: list[Any], golden: bytes) -> Any:
        sizes = [port.type.nbytes for port in self.interface.outputs]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        places = list(zip(starts, sizes, outputs, strict=True))
        if len(golden) <= STORED:
            stored = self._bytes("golden", golden or bytes(1), 1)
            verdict = ir.Constant(I32, 0)
            for start, size, place in places:
                verdict = builder.or_(verdict, emit_compare(builder, stored, start, size, place))
            return builder.zext(builder.icmp_unsigned("!=", verdict, ir.Constant(I32, 0)), I32)
        total = ir.Constant(I64, 0)
        for start, size, place in places:
            total = emit_checksum(builder, total, start, size, place)
        wrong = builder.icmp_unsigned("!=", total, ir.Constant(I64, checksum(golden)))
        return builder.zext(wrong, I32)

    def reset(self) -> None:
        """`int NAME_reset(states…)`: what the states hold before the first run."""
        states = [port.state for port, _ in self.interface.states if port.state is not None]
        if not states:
            return
        function = self._exported("reset", len(states))
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        self._refuse_null(builder, function.args)
        for number, (state, place) in enumerate(zip(states, function.args, strict=True)):
            content = np.ascontiguousarray(state.initial).tobytes()
            if state.fill is not None:  # one element tells all
                content = content[: state.initial.itemsize]
            stored = self._bytes(f"initial{number}", content, 1)
            emit_repeated(builder, stored, len(content), state.initial.nbytes, place)
        builder.ret(ir.Constant(I32, OK))

    def manifest(self, text: str) -> None:
        """`const char *NAME_manifest(void)`."""
        content = text.encode("ascii") + b"\0"
        stored = self._bytes("manifest_text", content, 1)
        function = export(self.module, f"{self.interface.name}_manifest", [], self.target, PTR)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        builder.ret(stored)

    def _bytes(self, what: str, content: bytes, align: int) -> Any:
        name = f"{self.interface.name}_{what}"
        self.blobs[name] = (content, align)
        return bytes_global(self.module, name, len(content), align)

    def _exported(self, what: str, arguments: int) -> Any:
        name = f"{self.interface.name}_{what}"
        return export(self.module, name, [PTR] * arguments, self.target)

    def _checked(self, function: Any, workspace: int = -1) -> Any:
        """A builder behind the checks: no pointer is null, the workspace, which is that argument,
        is aligned."""
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        word = ir.IntType(self.target.pointer_bits)
        self._refuse_null(builder, function.args)
        address = builder.ptrtoint(function.args[workspace], word)
        low = builder.and_(address, ir.Constant(word, ALIGN - 1))
        self._return_if(
            builder, builder.icmp_unsigned("!=", low, ir.Constant(word, 0)), ERROR_ALIGN
        )
        return builder

    def _refuse_null(self, builder: Any, pointers: Sequence[Any]) -> None:
        null = ir.Constant(ir.IntType(1), 0)
        for pointer in pointers:
            is_null = builder.icmp_unsigned("==", pointer, ir.Constant(pointer.type, None))
            null = builder.or_(null, is_null)
        self._return_if(builder, null, ERROR_NULL)

    def _return_if(self, builder: Any, condition: Any, status: int) -> None:
        with builder.if_then(condition, likely=False):
            builder.ret(ir.Constant(I32, status))


def _module(interface: Interface, target: Target) -> Any:
    module = ir.Module(interface.name)
    module.triple = target.triple
    module.data_layout = str(target.machine().target_data)
    return module
