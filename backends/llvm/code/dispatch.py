"""x86-64 levels in one library: CPUID says, once, which one this CPU runs.

The answer is kept in the one word that such a library ever writes. CPUID is asked once because it
traps to the hypervisor on virtual machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llvmlite import ir

from irc.backends.llvm.amx_permission import ARCH_PRCTL, REQUEST, TILE_DATA
from irc.backends.llvm.code.functions import I32, I64, PTR, declare
from irc.backends.llvm.target import Target, host
from irc.errors import CompileError

_LEAF1_ECX = {"fma": 12, "movbe": 22, "osxsave": 27, "avx": 28, "f16c": 29}
_LEAF7_EBX = {"bmi": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "avx512cd": 28,
              "avx512bw": 30, "avx512vl": 31}  # fmt: skip
_LEAF7_ECX = {"avx512vnni": 11}
_LEAF7_1_EAX = {"avxvnni": 4}
_LEAF7_EDX = {"amx-tile": 24, "amx-int8": 25}
_EXTENDED_ECX = {"lzcnt": 5}
_XCR0_AVX, _XCR0_AVX512, _XCR0_AMX = 0x6, 0xE6, 0x60000
_V3 = ("fma", "movbe", "osxsave", "avx", "f16c", "bmi", "avx2", "bmi2", "lzcnt")
_AMX = ("amx-tile", "amx-int8", "os amx")
_V4 = ("avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl")


def emit_dispatch(module: Any, name: str, what: str, bodies: Mapping[Target, Any]) -> Any:
    """A function `NAME_what` like the bodies that calls the one for this CPU; they are given by
    level, the lowest first, which every CPU is taken to run."""
    lowest, *higher = bodies
    arguments = [PTR] * len(bodies[lowest].args)
    function = declare(module, f"{name}_{what}", arguments, lowest)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    level = builder.call(_level_function(module, name, lowest, higher), [])
    done = function.append_basic_block("done")
    default = function.append_basic_block("level0")
    switch = builder.switch(level, default)
    for number, body in enumerate(bodies.values()):
        block = default if number == 0 else function.append_basic_block(f"level{number}")
        if number:
            switch.add_case(ir.Constant(I32, number + 1), block)
        builder.position_at_end(block)
        builder.call(body, function.args)
        builder.branch(done)
    builder.position_at_end(done)
    builder.ret_void()
    return function


def emit_asking(module: Any, name: str, what: str, target: Target, body: Any) -> Any:
    """A function `NAME_what` like the body that finds out, before it calls it, whether this process
    may use the target's tiles: `tiles_lent` then tells."""
    function = declare(module, f"{name}_{what}", [PTR] * len(body.args), target.untiled)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    builder.call(_level_function(module, name, target.untiled, [target]), [])
    builder.call(body, function.args)
    builder.ret_void()
    return function


def asks(module: Any) -> bool:
    """Whether a function of the module has asked `tiles_lent`."""
    return _word_name(module) in module.globals


def tiles_lent(builder: Any) -> Any:
    """Whether this process may use AMX, i1, as `emit_asking` found out. It is loaded where the
    function begins: a load between stores of tiles would wait for them."""
    with builder.goto_entry_block():
        word = builder.load_atomic(_word(builder.module), ordering="unordered", align=4, typ=I32)
        return builder.icmp_unsigned("==", word, ir.Constant(I32, 2))


def _word_name(module: Any) -> str:
    return f"{module.name}_level"


def _word(module: Any) -> Any:
    """Where a module keeps its level, 0 as long as it isn't known."""
    if _word_name(module) not in module.globals:
        word: Any = ir.GlobalVariable(module, I32, _word_name(module))
        word.linkage = "internal"
        word.initializer = ir.Constant(I32, 0)
    return module.globals[_word_name(module)]


def _level_function(module: Any, name: str, lowest: Target, higher: Sequence[Target]) -> Any:
    """`int level(void)`: 1 for the lowest. Threads that ask at once all find the same."""
    if f"{name}_cpu_level" in module.globals:
        return module.globals[f"{name}_cpu_level"]
    if not host().is_x86:
        raise CompileError(
            f"code for {' or '.join(t.name for t in (lowest, *higher))} can only be compiled on"
            " x86-64, whose assembler its CPUID needs: name one x86-64 level without AMX"
        )
    word = _word(module)
    function = declare(module, f"{name}_cpu_level", [], lowest, result=I32)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    known = builder.load_atomic(word, ordering="monotonic", align=4, typ=I32)
    with builder.if_then(builder.icmp_unsigned("!=", known, ir.Constant(I32, 0)), likely=True):
        builder.ret(known)
    level = ir.Constant(I32, 1)
    has = _features(builder)
    for number, each in enumerate(higher, 2):
        runs = _all(builder, has, _needed(each, lowest))
        runs = _permitted(builder, runs) if each.tiles else runs
        level = builder.select(runs, ir.Constant(I32, number), level)
    builder.store_atomic(level, word, ordering="monotonic", align=4)
    builder.ret(level)
    return function


def _needed(level: Target, lowest: Target) -> list[str]:
    """What CPUID must show for a level above the lowest."""
    tiles = _AMX if level.tiles else ()
    if (level.cpu, level.features) == (lowest.cpu, lowest.features):
        return ["osxsave", *tiles]
    extra = [f[1:] for f in level.features.split(",") if f and f[1:] not in tiles]
    wide = (*_V4, "os avx512") if level.vector_bytes == 64 else ()
    return [*_V3, "os avx", *extra, *wide, *tiles]


def _permitted(builder: Any, runs: Any) -> Any:
    """Whether the CPU runs a level and Linux lends this process the tiles, which it is asked for
    only then: a system call, without libc."""
    before = builder.block
    with builder.if_then(runs):
        asm = builder.asm(
            ir.FunctionType(I64, [I64] * 3), "syscall",
            "={ax},{ax},{di},{si},~{rcx},~{r11},~{memory}",
            [ir.Constant(I64, n) for n in (ARCH_PRCTL, REQUEST, TILE_DATA)], side_effect=True,
        )  # fmt: skip
        lent = builder.icmp_signed("==", asm, ir.Constant(I64, 0))
        asked = builder.block
    answer = builder.phi(ir.IntType(1))
    answer.add_incoming(ir.Constant(ir.IntType(1), 0), before)
    answer.add_incoming(lent, asked)
    return answer


def _all(builder: Any, has: Mapping[str, Any], names: Sequence[str]) -> Any:
    together = has[names[0]]
    for n in names[1:]:
        together = builder.and_(together, has[n])
    return together


def _features(builder: Any) -> dict[str, Any]:
    """What this CPU and its operating system have: an i1 per name."""
    highest = _cpuid(builder, 0, 0)[0]
    _, _, ecx1, _ = _cpuid(builder, 1, 0)
    has = _bits(builder, ecx1, _LEAF1_ECX)
    seven = builder.icmp_unsigned(">=", highest, ir.Constant(I32, 7))
    sub, *seventh = _cpuid(builder, 7, 0)
    zero = ir.Constant(I32, 0)
    for register, names in zip(seventh, (_LEAF7_EBX, _LEAF7_ECX, _LEAF7_EDX), strict=True):
        has |= _bits(builder, builder.select(seven, register, zero), names)
    one = builder.and_(seven, builder.icmp_unsigned(">=", sub, ir.Constant(I32, 1)))
    eax = builder.select(one, _cpuid(builder, 7, 1)[0], zero)
    has |= _bits(builder, eax, _LEAF7_1_EAX)
    has |= _bits(builder, _cpuid(builder, 0x80000001, 0)[2], _EXTENDED_ECX)
    return has | _saved_state(builder, has["osxsave"])


def _saved_state(builder: Any, osxsave: Any) -> dict[str, Any]:
    """Which registers the operating system saves; asking is a fault where it has no XSAVE."""
    with builder.if_else(osxsave) as (then, otherwise):
        with then:
            asm = builder.asm(
                ir.FunctionType(ir.LiteralStructType([I32, I32]), [I32]),
                "xgetbv", "={ax},={dx},{cx}", [ir.Constant(I32, 0)], side_effect=True,
            )  # fmt: skip
            word = builder.extract_value(asm, 0)
            with_state = builder.block
        with otherwise:
            without = builder.block
    state = builder.phi(I32)
    state.add_incoming(word, with_state)
    state.add_incoming(ir.Constant(I32, 0), without)
    found = {}
    for name, mask in (("os avx", _XCR0_AVX), ("os avx512", _XCR0_AVX512), ("os amx", _XCR0_AMX)):
        masked = builder.and_(state, ir.Constant(I32, mask))
        found[name] = builder.icmp_unsigned("==", masked, ir.Constant(I32, mask))
    return found


def _cpuid(builder: Any, leaf: int, sub: int) -> list[Any]:
    registers = ir.LiteralStructType([I32] * 4)
    asm = builder.asm(
        ir.FunctionType(registers, [I32, I32]), "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}",
        [ir.Constant(I32, leaf), ir.Constant(I32, sub)], side_effect=True,
    )  # fmt: skip
    return [builder.extract_value(asm, i) for i in range(4)]


def _bits(builder: Any, register: Any, names: Mapping[str, int]) -> dict[str, Any]:
    one = ir.Constant(I32, 1)
    return {
        name: builder.trunc(
            builder.and_(builder.lshr(register, ir.Constant(I32, bit)), one), ir.IntType(1)
        )
        for name, bit in names.items()
    }
