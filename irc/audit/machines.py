"""The architectures whose code can be audited."""

from __future__ import annotations

from collections.abc import Mapping

from irc.audit.arm import Arm
from irc.audit.arm64 import Arm64
from irc.audit.machine import Machine
from irc.audit.riscv import RiscV
from irc.audit.wasm import WebAssembly
from irc.audit.x86 import X86

MACHINES: Mapping[str, Machine] = {
    "x86_64": X86(),
    "aarch64": Arm64(),
    "arm": Arm(),
    "riscv": RiscV(),
    "wasm32": WebAssembly(),
}
