"""What people call a CPU or a system, and the target that they mean: data alone.

Rows stand for what has one meaning. Texts on the right are those that `parse_target` takes: the
name of a target, or LLVM's `triple:cpu:features`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_LINUX = "unknown-linux-gnu"
_V2, _V3, _V4 = "x86-64-v2", "x86-64-v3", "x86-64-v4"
_V3_VNNI, _V4_VNNI, _V4_AMX = f"{_V3}+avxvnni", f"{_V4}+avx512vnni", f"{_V4}+amx"

X86_CPUS: Mapping[str, str] = {
    **{level: level for level in (_V2, _V3, _V4)},
    **dict.fromkeys(
        ("nehalem", "westmere", "sandybridge", "ivybridge", "silvermont", "goldmont", "tremont"),
        _V2,
    ),
    **dict.fromkeys(("haswell", "broadwell", "skylake", "znver1", "znver2", "znver3"), _V3),
    **dict.fromkeys(
        ("alderlake", "raptorlake", "meteorlake", "arrowlake", "lunarlake", "pantherlake",
         "gracemont", "sierraforest", "grandridge"),
        _V3_VNNI,
    ),
    **dict.fromkeys(("skylake-avx512", "cannonlake"), _V4),
    **dict.fromkeys(
        ("cascadelake", "cooperlake", "icelake-client", "icelake-server", "tigerlake",
         "rocketlake", "znver4", "znver5"),
        _V4_VNNI,
    ),
    **dict.fromkeys(("sapphirerapids", "emeraldrapids", "graniterapids"), _V4_AMX),
}  # fmt: skip
"""x86-64 CPUs by LLVM's names, and the named target whose abilities they have at least."""


HALVES = ("znver4",)
"""CPUs that do vectors of 512 bits in two turns, on units of 256."""
SMALL_CACHES = ("icelake-client", "rocketlake")
"""CPUs with AVX512-VNNI and a second-level cache of 512 KB; others have 1 MB or more."""


def _cpus(triple: str, names: Iterable[str], features: str = "") -> dict[str, str]:
    return {name: f"{triple}:{name}{features and ':'}{features}" for name in names}


CPUS: Mapping[str, str] = {
    **_cpus(f"x86_64-{_LINUX}", (n for n in X86_CPUS if n not in (_V2, _V3, _V4))),
    **_cpus(f"aarch64-{_LINUX}", (
        "cortex-a34", "cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73",
    ), "+neon"),
    **_cpus(f"aarch64-{_LINUX}", (
        "cortex-a55", "cortex-a75", "cortex-a76", "cortex-a77", "cortex-a78", "cortex-a510",
        "cortex-a520", "cortex-a710", "cortex-a715", "cortex-a720", "cortex-a725", "cortex-x1",
        "cortex-x2", "cortex-x3", "cortex-x4", "cortex-x925", "neoverse-e1", "neoverse-n1",
        "neoverse-n2", "neoverse-n3", "neoverse-v1", "neoverse-v2", "neoverse-v3", "ampere1",
        "ampere1a", "ampere1b",
    ), "+neon,+dotprod"),
    **_cpus("arm64-apple-macosx11.0.0", (
        "apple-m1", "apple-m2", "apple-m3", "apple-m4",
    ), "+neon,+dotprod"),
    **_cpus("armv7-unknown-linux-gnueabihf", (
        "cortex-a5", "cortex-a7", "cortex-a8", "cortex-a9", "cortex-a15",
    ), "+neon"),
    **_cpus("thumbv6m-none-eabi", ("cortex-m0", "cortex-m0plus")),
    **_cpus("thumbv7m-none-eabi", ("cortex-m3",)),
    **_cpus("thumbv7em-none-eabi", ("cortex-m7",)),
    **_cpus("thumbv8m.base-none-eabi", ("cortex-m23",)),
    **_cpus("thumbv8m.main-none-eabi", ("cortex-m33", "cortex-m35p")),
    **_cpus("thumbv8.1m.main-none-eabi", ("cortex-m52", "cortex-m85"), "+mve"),
}  # fmt: skip
"""CPUs that go by a name of their own, on the system that they are most used with."""

EXAMPLES = ("skylake", "znver4", "apple-m1", "cortex-a53", "cortex-m7")
"""CPUs that a message names."""

ALIASES: Mapping[str, str] = {
    "native": "host",
    **dict.fromkeys(("amd64", "x64"), "x86-64"),
    "arm64": "aarch64",
    **dict.fromkeys(("armv7a", "armv7l", "armhf"), "armv7"),
    "rv64gc": "riscv64",
    "rv64gcv": "riscv64+v",
    "wasm": "wasm32",
    "arm-linux-gnueabihf": "armv7",  # Debian's: no older Arm has its floating point
    **dict.fromkeys(
        ("arm64-apple-darwin", "aarch64-apple-darwin", "arm64-apple-macos",
         "arm64-apple-macosx", "aarch64-apple-macos", "aarch64-apple-macosx"),
        "apple-m1",
    ),
}  # fmt: skip
"""Other words for targets that have a name, in lower case and with dashes. Every Mac of Arm's
architecture is an M1 or newer."""

LEAST: Mapping[str, str] = {
    "x86_64": "x86-64", "aarch64": "aarch64", "arm64": "aarch64", "armv7": "armv7",
    "riscv64": "riscv64", "wasm32": "wasm32",
}  # fmt: skip
"""First words of triples, and the named target whose CPU they mean where they name none."""

SYSTEMS: Mapping[str, str] = {
    "linux": "linux", "windows": "windows", "macos": "macosx", "macosx": "macosx",
    "darwin": "macosx", "ios": "ios", "tvos": "tvos", "watchos": "watchos", "wasi": "wasi",
    "none": "none", "unknown": "unknown",
}  # fmt: skip
"""The systems that a triple may name, without their versions."""
