"""Holding a comparison to one level of x86 instruction sets, whatever the CPU has beyond it."""

import os
from dataclasses import dataclass

ONEDNN_VARIABLE = "ONEDNN_MAX_CPU_ISA"


@dataclass(frozen=True)
class Level:
    """One level: `target` for irc, `onednn` for OpenVINO, and the loop of peak.c that no code of
    the level outdoes; empty means no limit."""

    name: str
    target: str = "host"
    onednn: str = ""
    peak: str = ""


NATIVE = Level("native")
LEVELS = {
    level.name: level
    for level in (
        NATIVE,
        Level("avx2", "x86-64-v3", "AVX2", "maddubs_256"),
        Level("avx-vnni", "x86-64-v3+avxvnni", "AVX2_VNNI", "dpbusd_avx_256"),
        Level("avx512-vnni", "x86-64-v4+avx512vnni", "AVX512_CORE_VNNI", "dpbusd_512"),
    )
}


def hold_to(level: Level) -> None:
    """Limit oneDNN, which OpenVINO computes with; call it before OpenVINO is loaded."""
    if level.onednn:
        os.environ[ONEDNN_VARIABLE] = level.onednn
