"""The promises of a library, each as a check."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irc import driver
from irc.audit import probe
from irc.audit.binary import Binary
from irc.audit.disassembly import disassemble
from irc.audit.files import read
from irc.audit.flow import Function, functions, reachable, recursion, stack_bound
from irc.audit.machine import Instruction, Machine
from irc.audit.machines import MACHINES
from irc.errors import ToolError

API = ("run", "run_f32", "run_parallel", "self_test", "manifest", "reset", "threads_stop")
POOL = frozenset((
    "getpid", "pthread_create", "pthread_join", "pthread_mutex_init", "pthread_mutex_lock",
    "pthread_mutex_unlock", "pthread_cond_init", "pthread_cond_wait", "pthread_cond_broadcast",
    "sched_yield",
))  # fmt: skip
"""What a library with threads of its own needs from outside."""
C_LIBRARY = re.compile(r"(libc|libpthread|libc\.musl-\w+)\.so(\.\d+)?")
POOL_DATA = re.compile(r"(\.(bss|got|got\.plt)|__DATA,__bss) \(\d+ bytes\)")
"""Where its pool's state lies, and the addresses of what it needs."""
EDGE = ("run_f32",)
"""What may compute with floats, and whatever only it reaches."""
LEVEL_WORD = (".bss (4 bytes)", ".bss (8 bytes)", "__DATA,__bss (4 bytes)")
"""Where a library of several CPU levels keeps the level that it found."""
ASKING = tuple(
    {f"mov {r}, {number:#x}" for r in registers}
    for number, registers in (
        (158, ("eax", "rax")), (0x1023, ("edi", "rdi")), (18, ("esi", "rsi"))
    )
)  # fmt: skip
"""What sets up the one system call that a library may make, which asks for AMX."""
ASKED_WITHIN = 32
"""Bytes of code."""
EVERY_PROGRAM_HAS = {"COFF": frozenset(("_fltused",))}
"""What compilers refer to and each program's start defines: Windows' word that floats are used."""
RUNTIME = re.compile(r"__aeabi_\w+|__\w+[dst][if][234]?|__(clz|ctz|popcount)\w+")
"""What compilers call for arithmetic that a CPU lacks, of libgcc or compiler-rt."""
HERE = {"AMD64": "x86_64", "arm64": "aarch64", "armv7l": "arm", "riscv64": "riscv"}
"""Architectures whose name here is not Python's."""
MOST_NAMED = 3
SECONDS = 120


@dataclass(frozen=True)
class Check:
    """One promise: whether it holds (None: it can't be tried here), and what was seen."""

    promise: str
    holds: bool | None
    seen: str


def audit(path: str | Path) -> list[Check]:
    """Every promise, checked; nothing of the library runs but its self test, in its own process.

    Raises `ToolError` for what is no library, or can't be disassembled here.
    """
    binary = read(Path(path))
    code = disassemble(binary)
    return _Audit(binary, MACHINES[binary.arch], code).checks()


def runtime_symbols(path: str | Path) -> list[str]:
    """What an object needs of its compiler's runtime library; raises `ToolError` for no object."""
    return [s for s in read(Path(path)).undefined if RUNTIME.fullmatch(s)]


class _Audit:
    def __init__(
        self, binary: Binary, machine: Machine, code: Mapping[int, Instruction]
    ) -> None:
        self.binary, self.machine, self.code = binary, machine, code
        self.name = _name(binary)
        self.entries = {
            what: binary.exports[f"{self.name}_{what}"]
            for what in API
            if f"{self.name}_{what}" in binary.exports
        }
        self.found = functions(code, machine, self.entries.values(), binary.imports)

    def checks(self) -> list[Check]:
        return [
            self.manifest(),
            self.exports(),
            self.undefined(),
            self.data(),
            self.integer(),
            self.control(),
            self.stack(),
            self.self_test(),
        ]

    def manifest(self) -> Check:
        promise = "carries its manifest"
        content = self.binary.manifest
        if content is None:
            return Check(promise, False, "none in the read-only data")
        holds = content.get("name") == self.name
        made = f"{content.get('name')}, made by irc {content.get('irc')}"
        return Check(promise, holds, made if holds else f"{made}, but it exports {self.name!r}")

    def exports(self) -> Check:
        expected = {f"{self.name}_{what}" for what in API}
        extra = sorted(set(self.binary.exports) - expected)
        missing = [w for w in ("run", "self_test", "manifest") if w not in self.entries]
        seen = f"{len(self.entries)} functions"
        if extra:
            seen = f"also {_listed(extra)}"
        elif missing:
            seen = f"lacks {_listed(missing)}"
        return Check("exports its interface and no more", not extra and not missing, seen)

    def undefined(self) -> Check:
        promise, b = "needs nothing from outside", self.binary
        if not self.pooled:
            given = EVERY_PROGRAM_HAS.get(b.form, frozenset())
            missing = [*(s for s in b.undefined if s not in given), *b.needed]
            return Check(promise, not missing, _missing(missing) or "nothing")
        missing = [s for s in b.undefined if s not in POOL]
        missing += [n for n in b.needed if not C_LIBRARY.fullmatch(n)]
        pool = f"nothing but its pool's POSIX threads: {_listed(sorted(b.undefined))}"
        return Check(promise, not missing, _missing(missing) or pool)

    def data(self) -> Check:
        problems = [s for s in self.binary.writable if not self._may_write(s)]
        if self.binary.executable_writable:
            problems.append("a segment that is writable and executable")
        relocations = self.binary.relocations
        if relocations > (len(self.binary.undefined) if self.pooled else 0):
            when = "at load time" if self.binary.linked else "in its data"
            problems.append(f"{relocations} relocations {when}")
        allowed = "one word, the CPU's level, found once" if self.binary.writable else "none"
        allowed = "its pool of threads alone" if self.pooled else allowed
        if self.binary.form == "WebAssembly":
            allowed += ", by its segments' names: an engine can't protect them"
        return Check("has no writable data", not problems, _listed(problems) or allowed)

    def _may_write(self, section: str) -> bool:
        if self.pooled and POOL_DATA.fullmatch(section):
            return True
        return self.fat and section in LEVEL_WORD

    @property
    def pooled(self) -> bool:
        """Whether the library says that it has threads of its own."""
        threads = (self.binary.manifest or {}).get("threads", 1)
        return isinstance(threads, int) and threads > 1

    @property
    def fat(self) -> bool:
        """Whether the library holds several levels of one CPU and keeps which one it runs."""
        return bool((self.binary.manifest or {}).get("levels"))

    def integer(self) -> Check:
        integer = {f.entry for f in self.behind([w for w in self.entries if w not in EDGE])}
        edge = {f.entry for f in self.behind(EDGE)} - integer
        floats = [
            f"{i} in {self.binary.name(f.entry)}"
            for f in self.found.values()
            if f.entry not in edge
            for i in self.instructions(f)
            if self.machine.is_float(i)
        ]
        count = sum(len(f.reached) for f in self.behind(["run"]))
        seen = _listed(floats) or f"none of {count:,} instructions behind {self.name}_run"
        return Check("computes without floating point", "run" in self.entries and not floats, seen)

    def control(self) -> Check:
        system = [i for f in self.found.values() for i in f.system]
        asks = self.fat and [self._asks_for_tiles(i) for i in system] == [True]
        strays = [
            f"{self.shown(i)} in {self.binary.name(f.entry)}"
            for f in self.found.values()
            for i in (*f.strays, *(() if asks else f.system), *self._astray(f), *self._left(f))
        ]
        seen = _listed(strays) or f"{len(self.found)} functions, all calls direct"
        known = ["an executor's"] if any(f.indirect for f in self.found.values()) else []
        known += ["asking Linux to lend AMX"] if asks else []
        if known and not strays:
            seen += f", but for {' and '.join(known)}"
        return Check("never leaves its own code", not strays, seen)

    def _astray(self, f: Function) -> list[Instruction]:
        """Calls by a pointer, where it is neither an executor that is called nor a pool's task."""
        executes = {g.entry for g in self.behind(["run_parallel"])}
        executes -= {g.entry for g in self.behind(["run"])}
        return [] if self.pooled or f.entry in executes else f.indirect

    def _left(self, f: Function) -> list[Instruction]:
        """Calls of other libraries, where there is no pool that needs them."""
        return [] if self.pooled else f.outside

    def _asks_for_tiles(self, call: Instruction) -> bool:
        """Whether a system call is `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`: its
        numbers are put into registers right before it."""
        before = [a for a in self.code if call.address - ASKED_WITHIN <= a < call.address]
        set_up = {str(self.code[a]) for a in before}
        return call.mnemonic == "syscall" and all(set_up & forms for forms in ASKING)

    def stack(self) -> Check:
        promise = "uses a bounded stack"
        if self.binary.form == "WebAssembly":
            return Check(promise, None, "the engine's stack is not described by the code")
        for entry in self.entries.values():
            if cycle := recursion(self.found, entry):
                chain = " calls ".join(self.binary.name(a) for a in cycle)
                return Check(promise, False, chain)
        unknown = [
            f"{i} in {self.binary.name(f.entry)}" for f in self.found.values() for i in f.unknown
        ]
        if unknown:
            return Check(promise, False, _listed(unknown))
        bounds = {w: stack_bound(self.found, a, self.machine) for w, a in self.entries.items()}
        runs = [w for w in ("run", "run_f32") if w in bounds]
        shown = ", ".join(f"{self.name}_{w} {bounds[w]:,}" for w in runs)
        return Check(promise, bool(shown), f"at most, in bytes: {shown}")

    def self_test(self) -> Check:
        promise = "passes its self test"
        content = self.binary.manifest
        if not self.binary.linked:
            return Check(promise, None, "an object can't be run: link it, or audit the .so")
        if HERE.get(platform.machine(), platform.machine()) != self.binary.arch:
            return Check(promise, None, f"made for {self.binary.arch}, not for this machine")
        if content is None or "self_test" not in self.entries:
            return Check(promise, False, "has none")
        if "target" in content and (why := driver.cannot_run(content["target"])):
            return Check(promise, None, f"not run: {why}")
        command = [sys.executable, "-I", str(probe.__file__), str(self.binary.path.resolve()),
                   self.name, str(content.get("workspace_bytes", 0))]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return Check(promise, False, f"takes over {SECONDS} seconds")
        if done.returncode < 0:
            return Check(promise, False, f"dies of signal {-done.returncode}")
        holds = done.returncode == 0
        return Check(promise, holds, "every bit is right" if holds else "wrong bits, or not loaded")

    def shown(self, i: Instruction) -> str:
        """The instruction, with the name of what it calls."""
        named = i.target in self.binary.functions
        return f"{i.mnemonic} {self.binary.functions[i.target or 0]}" if named else str(i)

    def behind(self, entries: Sequence[str]) -> list[Function]:
        """The functions that some entries reach, each once."""
        starts = [self.entries[w] for w in entries if w in self.entries]
        several = {f.entry: f for start in starts for f in reachable(self.found, start)}
        return list(several.values())

    def instructions(self, f: Function) -> list[Instruction]:
        return [self.code[a] for a in sorted(f.reached)]


def _name(binary: Binary) -> str:
    """The library's name: what stands before `_run` in its exports. Raises `ToolError` where there
    is nothing of the kind."""
    runs = sorted(n.removesuffix("_run") for n in binary.exports if n.endswith("_run"))
    claimed = (binary.manifest or {}).get("name")
    if not runs:
        raise ToolError(f"{binary.path} exports no NAME_run: it is no library of ours")
    return claimed if claimed in runs else runs[0]


def _missing(names: Sequence[str]) -> str:
    """What is needed from outside; empty where nothing is."""
    runtime = names and all(RUNTIME.fullmatch(n) for n in names)
    where = " of the compiler's own runtime library, for arithmetic that the CPU lacks"
    return f"{_listed(names)}{where if runtime else ''}"


def _listed(items: Sequence[str]) -> str:
    """The first few of several things."""
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return f"{', '.join(items[:MOST_NAMED])}{more}"
