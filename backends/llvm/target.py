"""Targets: what a CPU can do, as data."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from llvmlite import binding

from irc.backends.llvm.amx_permission import tiles_permitted
from irc.backends.llvm.target_names import ALIASES, CPUS, EXAMPLES, HALVES, LEAST, SYSTEMS, X86_CPUS
from irc.errors import CompileError
from irc.names import there_are

SMALL_REGISTERS = 12
"""Vector registers that short code fills."""


class Dot(Enum):
    """The dot-product instruction of a target, and its exact meaning."""

    NONE = "none"
    MADDUBS = "maddubs"
    """x86 `vpmaddubsw`: u8*i8 pairs summed into a *saturating* i16."""
    VPDPBUSD = "vpdpbusd"
    """x86 (AVX-)VNNI: four u8*i8 products added to an i32; wraps, so exact."""
    DOT_I16X8 = "dot_i16x8"
    """WebAssembly `i32x4.dot_i16x8_s`: i16*i16 pairs summed into an i32; exact for bytes."""
    RELAXED = "relaxed"
    """WebAssembly `i32x4.relaxed_dot_i8x16_i7x16_add_s`: i8 by i8, or by u8, as the engine has it,
    pairs summed into an i16 that may saturate, then added to an i32."""
    SMLAL = "smlal"
    """Neon `smull`, `smlal`, `sadalp`: i8*i8 pairs summed into an i16, which wraps, then an i32."""
    SDOT = "sdot"
    """AArch64 `sdot`: four i8*i8 products added to an i32; wraps, so exact."""


@dataclass(frozen=True)
class Target:
    """A CPU to generate code for. `vector_bytes` is the widest vector register worth using, 0
    for none; `registers` counts vector registers."""

    name: str
    triple: str
    cpu: str
    features: str = ""
    vector_bytes: int = 0
    registers: int = 16
    dot: Dot = Dot.NONE
    tiles: bool = False
    """Whether AMX's `tdpbusd` multiplies tiles of 16x64 u8 by 64x16 i8. A library asks the system
    for it, and does without where it may not have it."""
    pointer_bits: int = 64
    abi: str = ""
    hardware_double: bool = True
    """Whether double precision is done in hardware, as the float edge needs."""

    small: bool = False
    """Whether code is to be short rather than fast."""

    levels: tuple[Target, ...] = ()
    """Of a library for several levels of a CPU: each of them, the lowest first."""

    def on(self, triple: str) -> Target:
        """The same CPU in another system, without what that does not lend."""
        levels = tuple(each.on(triple) for each in self.levels if _lends(triple, each))
        return dataclasses.replace(
            self, triple=triple, tiles=self.tiles and _lends(triple, self), levels=levels
        )

    @property
    def untiled(self) -> Target:
        """The same CPU where it may not use AMX."""
        return dataclasses.replace(self, name=f"{self.name} without AMX", tiles=False)

    @property
    def without_tiles(self) -> str:
        """The features but for AMX's."""
        words = (f for f in self.features.split(",") if f[1:] not in _AMX)
        return ",".join(words)

    @property
    def arch(self) -> str:
        """First word of the triple."""
        return self.triple.partition("-")[0]

    @property
    def is_x86(self) -> bool:
        """Whether this is x86-64."""
        return self.arch == "x86_64"

    @property
    def is_wasm(self) -> bool:
        """Whether this is WebAssembly."""
        return self.arch.startswith("wasm")

    @property
    def is_aarch64(self) -> bool:
        """Whether this is 64-bit Arm."""
        return self.arch in ("aarch64", "arm64")

    @property
    def shifts_lanes(self) -> bool:
        """Whether each lane of a vector is shifted by an amount of its own."""
        return not self.is_wasm and (not self.is_x86 or self.vector_bytes >= 32)

    @property
    def rounds_words(self) -> bool:
        """Whether results are rounded when they are words of 16 bits (`kernels.late`)."""
        return self.is_x86 and self.vector_bytes >= 32

    @property
    def masks_lanes(self) -> bool:
        """Whether an instruction can leave some lanes of a vector as they are."""
        return self.is_x86 and self.vector_bytes == 64

    @property
    def halves(self) -> bool:
        """Whether the widest vectors are done in two turns, each half of them."""
        return self.vector_bytes == 64 and self.cpu in HALVES

    @property
    def system(self) -> str:
        """The operating system of the triple: linux, windows, macosx, none, …"""
        return system_of(self.triple) or "unknown"

    @property
    def fused(self) -> bool:
        """Whether doubles are known to be multiplied and added in hardware with one rounding."""
        return self.is_aarch64 or "fma" in needed_features(self.cpu, self.features)

    @property
    def is_elf(self) -> bool:
        """Whether object files are ELF."""
        other = self.is_macho or self.system == "windows" or self.is_wasm
        return not other

    @property
    def is_macho(self) -> bool:
        """Whether object files are Mach-O, Apple's."""
        return "-apple-" in self.triple or self.system == "macosx"

    def machine(self) -> Any:
        """LLVM's target machine: position independent, small code model."""
        initialize()
        try:
            return binding.Target.from_triple(self.triple).create_target_machine(
                cpu=self.cpu, features=self.features, opt=3, reloc="pic", codemodel="small",
                abiname=self.abi,
            )  # fmt: skip
        except RuntimeError as error:
            raise CompileError(f"target {self.name}: LLVM refuses {self.triple}: {error}") from None


_V2_FEATURES = {"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"}
_V3_FEATURES = _V2_FEATURES | {
    "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave",
}  # fmt: skip
_V4_FEATURES = _V3_FEATURES | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_LEVELS = {"x86-64-v2": _V2_FEATURES, "x86-64-v3": _V3_FEATURES, "x86-64-v4": _V4_FEATURES}
_LINUX = "unknown-linux-gnu"
_X86 = f"x86_64-{_LINUX}"
_V3 = "x86-64-v3"
_V4 = "x86-64-v4"
_AMX = frozenset(("amx-tile", "amx-int8"))
_RISCV = "+m,+a,+f,+d,+c"

NAMED: dict[str, Target] = {
    t.name: t
    for t in (
        Target("x86-64-v2", _X86, "x86-64-v2", "", 16, 16, Dot.MADDUBS),
        Target(_V3, _X86, _V3, "", 32, 16, Dot.MADDUBS),
        Target("x86-64-v3+avxvnni", _X86, _V3, "+avxvnni", 32, 16, Dot.VPDPBUSD),
        Target(_V4, _X86, _V4, "", 64, 32, Dot.MADDUBS),
        Target("x86-64-v4+avx512vnni", _X86, _V4, "+avx512vnni", 64, 32, Dot.VPDPBUSD),
        Target("x86-64-v4+amx", _X86, _V4, "+avx512vnni,+amx-tile,+amx-int8", 64, 32,
               Dot.VPDPBUSD, tiles=True),
        Target("aarch64", f"aarch64-{_LINUX}", "generic", "+neon", 16, 32, Dot.SMLAL),
        Target("aarch64+dotprod", f"aarch64-{_LINUX}", "generic", "+neon,+dotprod", 16, 32,
               Dot.SDOT),
        Target("armv7", f"armv7-{_LINUX}eabihf", "generic", "+neon,+vfp3", 16, 16,
               Dot.SMLAL, pointer_bits=32),
        Target("cortex-m4", "thumbv7em-none-eabi", "cortex-m4", "", 0, 0, pointer_bits=32,
               hardware_double=False),
        Target("cortex-m55", "thumbv8.1m.main-none-eabi", "cortex-m55", "+mve", 16, 8,
               pointer_bits=32, hardware_double=False),
        Target("riscv64", f"riscv64-{_LINUX}", "generic-rv64", _RISCV, 0, 0, abi="lp64d"),
        Target("riscv64+v", f"riscv64-{_LINUX}", "generic-rv64", f"{_RISCV},+v", 16, 32,
               abi="lp64d"),
        Target("wasm32", "wasm32-unknown-unknown", "generic", "+simd128", 16, 16,
               Dot.DOT_I16X8, pointer_bits=32),
        Target("wasm32+relaxed-simd", "wasm32-unknown-unknown", "generic",
               "+simd128,+relaxed-simd", 16, 16, Dot.RELAXED, pointer_bits=32),
    )
}  # fmt: skip
"""Targets that have a name of their own."""

_FAT = ("x86-64-v2", "x86-64-v3", "x86-64-v3+avxvnni", "x86-64-v4+avx512vnni",
        "x86-64-v4+amx")
NAMED["x86-64"] = Target(
    "x86-64", _X86, "x86-64", "", 16, 16, levels=tuple(NAMED[n] for n in _FAT)
)


def parse_target(text: str) -> Target:
    """A target by name (`host`, a key of `NAMED`, a CPU or another word of `target_names`), as a
    triple, which means the least CPU of its architecture, or as LLVM's `triple:cpu:features`.

    Raises `CompileError` for a target that does not exist.
    """
    word = text.lower().replace("_", "-")
    if word == "host":
        return host()
    if word in NAMED:
        return NAMED[word]
    if meant := ALIASES.get(word) or CPUS.get(word):
        return parse_target(meant)
    triple, *rest = text.split(":")
    if len(rest) in (1, 2) and "-" in triple:
        return custom(text)
    if not rest and "-" in triple and system_of(triple):
        return _least(triple)
    listed = there_are(word, ("host", *NAMED), (*ALIASES, *CPUS))
    raise CompileError(
        f"target {text!r} does not exist; {listed}, CPUs by LLVM's names ({', '.join(EXAMPLES)},"
        " …), triples (aarch64-linux-gnu), and triple:cpu:features"
    )


def system_of(triple: str) -> str:
    """The operating system of a triple, empty where it names none that is known."""
    words = [re.sub(r"[\d.]+\Z", "", part) for part in triple.split("-")[1:]]
    known = [SYSTEMS[word] for word in words if word in SYSTEMS]
    return known[-1] if known else ""


def _lends(triple: str, target: Target) -> bool:
    """Whether a system is known to lend what a target uses: of AMX, Linux alone is."""
    return system_of(triple) == "linux" or not target.tiles


def _least(triple: str) -> Target:
    """The least CPU that a triple stands for; on x86-64 every level, as its plain name does."""
    _need_known(triple)
    arch = triple.partition("-")[0]
    if arch in LEAST:
        return dataclasses.replace(NAMED[LEAST[arch]], name=triple).on(triple)
    if not arch.startswith(("arm", "thumb")):
        raise CompileError(f"target {triple!r} names no CPU: write {triple}:CPU:FEATURES")
    base = _like_arch(triple, set())
    return dataclasses.replace(base, name=triple, cpu="generic", features="").on(triple)


OPTIMIZE = ("speed", "size")


def aim(text: str, optimize: str = "speed") -> Target:
    """A target by name, and what its code is to be optimized for; raises `CompileError` for what
    does not exist."""
    if optimize not in OPTIMIZE:
        raise CompileError(f"can't optimize for {optimize!r}: there are {' and '.join(OPTIMIZE)}")
    target = parse_target(text)
    return _for_size(target) if optimize == "size" else target


def _for_size(target: Target) -> Target:
    """The same CPU with tiles of few registers, and without AMX, which would need code beside it
    that does without."""
    return dataclasses.replace(
        target, small=True, tiles=False, registers=min(target.registers, SMALL_REGISTERS),
        levels=tuple(_for_size(level) for level in target.levels),
    )  # fmt: skip


def custom(text: str) -> Target:
    """`triple:cpu:features` with the abilities that its CPU and features are known to have."""
    triple, cpu, features = (*text.split(":"), "")[:3]
    _need_known(triple)
    unknown = "" if text in CPUS.values() else _ignored(triple, cpu, features)
    if unknown:
        raise CompileError(f"target {text!r}: {unknown}")
    words = {f[1:] for f in features.split(",") if f.startswith("+")}
    arch = triple.partition("-")[0]
    if arch == "x86_64":
        base = NAMED[X86_CPUS[cpu]] if cpu in X86_CPUS else Target("", triple, cpu, "", 16, 16)
        base = x86(dataclasses.replace(base, triple=triple), words)
    else:
        base = _like_arch(triple, words)
    return dataclasses.replace(
        base, name=text, triple=triple, cpu=cpu or base.cpu, features=features
    )


def _need_known(triple: str) -> None:
    initialize()
    try:
        binding.Target.from_triple(triple)
    except RuntimeError as error:
        raise CompileError(f"target {triple!r}: {str(error).strip()}") from None


@cache
def _ignored(triple: str, cpu: str, features: str) -> str:
    """What LLVM says of a CPU or feature that it does not know and would pass over; empty where it
    knows all. It says so on stderr only: hence a process of its own."""
    if not cpu and not features:
        return ""
    command = [sys.executable, "-c", _TRY, triple, cpu, features]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "is not a recognized" in line]
    return said[0].partition(" (")[0] if said else ""


_TRY = """
import sys
from llvmlite import binding
binding.initialize_all_targets()
binding.initialize_all_asmprinters()
triple, cpu, features = sys.argv[1:]
binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
"""


def _like_arch(triple: str, words: set[str]) -> Target:
    arch = triple.partition("-")[0]
    if arch in ("aarch64", "arm64"):
        return NAMED["aarch64+dotprod" if "dotprod" in words else "aarch64"]
    if arch.startswith(("arm", "thumb")):
        bits = 16 if words & {"neon", "mve"} else 0
        dot = Dot.SMLAL if "neon" in words else Dot.NONE
        double = "eabihf" in triple and "linux" in triple
        base = dataclasses.replace(NAMED["armv7"], vector_bytes=bits, dot=dot)
        return dataclasses.replace(base, hardware_double=double)
    if arch == "riscv64":
        return NAMED["riscv64+v" if "v" in words else "riscv64"]
    if arch == "riscv32":
        return Target("", triple, "", "", 0, 0, pointer_bits=32, hardware_double="d" in words)
    if arch.startswith("wasm"):
        base = NAMED["wasm32+relaxed-simd" if "relaxed-simd" in words else "wasm32"]
        plain = dataclasses.replace(base, vector_bytes=0, dot=Dot.NONE)
        return base if words & {"simd128", "relaxed-simd"} else plain
    return Target("", triple, "", "", 0, 0, pointer_bits=64 if "64" in arch else 32)


@cache
def host() -> Target:
    """This machine, as LLVM detects it."""
    initialize()
    triple, cpu = binding.get_process_triple(), binding.get_host_cpu_name()
    present = binding.get_host_cpu_features()
    words = {name for name, on in present.items() if on}
    features = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(present.items()))
    if triple.startswith("x86_64"):
        base = x86(Target("host", triple, cpu, "", 16, 16), words)
        base = dataclasses.replace(base, tiles=base.tiles and tiles_permitted())
    else:
        base = _like_arch(triple, words)
    return dataclasses.replace(base, name="host", triple=triple, cpu=cpu, features=features)


def refusal(triple: str, cpu: str, features: str) -> str:
    """Why code for a CPU can't run on this machine; empty where it can. Of AMX, code finds out
    by itself."""
    here = host()
    if triple.split("-")[0] != here.arch:
        return f"it is code for {triple.split('-')[0]}, this machine is {here.arch}"
    present = {name for name, on in binding.get_host_cpu_features().items() if on}
    missing = sorted(needed_features(cpu, features) - present - _AMX)
    return f"this machine's CPU lacks {', '.join(missing)}" if missing else ""


def needed_features(cpu: str, features: str) -> set[str]:
    """What code for a CPU with features may use: those that are named, and those of its level."""
    level = NAMED[X86_CPUS[cpu]].cpu if cpu in X86_CPUS else ""
    return {f[1:] for f in features.split(",") if f.startswith("+")} | _LEVELS.get(level, set())


def x86(base: Target, features: set[str]) -> Target:
    """`base` with the vector abilities that a set of x86-64 features gives on top."""
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= features:
        dot = Dot.VPDPBUSD if "avx512vnni" in features else Dot.MADDUBS
        return _with_tiles(_at_least(base, 64, 32, dot), features)
    if base.vector_bytes == 64:
        return _with_tiles(base, features)
    if "avx2" in features or base.vector_bytes >= 32:
        vnni = "avxvnni" in features
        return _at_least(base, 32, 16, Dot.VPDPBUSD if vnni else Dot.MADDUBS)
    return _at_least(base, 16, 16, Dot.MADDUBS if "ssse3" in features else Dot.NONE)


def _with_tiles(base: Target, features: set[str]) -> Target:
    """AMX, where the features have it on top of AVX512-VNNI, and the system is known to lend it."""
    base = _at_least(base, 64, 32, Dot.VPDPBUSD if "avx512vnni" in features else base.dot)
    tiles = base.dot is Dot.VPDPBUSD and (base.tiles or features >= _AMX)
    return dataclasses.replace(base, tiles=tiles and base.system == "linux")


def _at_least(base: Target, vector_bytes: int, registers: int, dot: Dot) -> Target:
    rank = [Dot.NONE, Dot.MADDUBS, Dot.VPDPBUSD]
    return dataclasses.replace(
        base,
        vector_bytes=max(base.vector_bytes, vector_bytes),
        registers=max(base.registers, registers),
        dot=max(base.dot, dot, key=rank.index),
    )


@cache
def initialize() -> None:
    """Make all of LLVM's targets known, once."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    binding.initialize_native_asmparser()  # reads the CPUID of libraries for several levels
