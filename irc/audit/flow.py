"""Following control flow from a function: what can run, what it calls, how deep the stack gets.

Goes by addresses alone, so it needs no symbols and can't be led astray by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from irc.audit.machine import Frame, Instruction, Machine, UnknownStack

PADDING = frozenset((
    "nop", "nop.w", "nopw", "nopl", "xchg", "int3", "udf", ".word", ".short", ".hword", ".byte",
    ".long", "unimp", "c.unimp",
))  # fmt: skip
"""What stands between functions: filling, and Arm's constants."""


@dataclass
class Function:
    """What one function may do. `calls` gives callees and the stack in use at each call; `outside`
    are its calls of what other libraries have, `system` those of the operating system, `indirect`
    those by a pointer, `strays` places where control can't be followed, `unknown` where the stack
    can't."""

    entry: int
    reached: dict[int, Frame] = field(default_factory=dict)
    depth: int = 0
    calls: list[tuple[int, int]] = field(default_factory=list)
    outside: list[Instruction] = field(default_factory=list)
    system: list[Instruction] = field(default_factory=list)
    indirect: list[Instruction] = field(default_factory=list)
    strays: list[Instruction] = field(default_factory=list)
    unknown: list[Instruction] = field(default_factory=list)


def _is_padding(i: Instruction) -> bool:
    """Filling may also move a register to itself."""
    return i.mnemonic in PADDING or (i.mnemonic == "mov" and len(set(i.operands)) == 1)


def functions(
    code: Mapping[int, Instruction],
    machine: Machine,
    entries: Iterable[int],
    imports: Sequence[range] = (),
) -> dict[int, Function]:
    """Every function that the entries reach, by address; and whatever else is code, which may be
    called by a pointer. Calls that lead to `imports` leave the library."""
    found: dict[int, Function] = {}
    covered: set[int] = set()

    def walk(entry: int) -> None:
        pending = [entry]
        while pending:
            entry = pending.pop()
            if entry not in found:
                found[entry] = _Walk(code, machine, Function(entry), imports).run()
                covered.update(found[entry].reached)
                pending += [callee for callee, _ in found[entry].calls]

    for entry in entries:
        walk(entry)
    for address in sorted(code):
        outside = any(address in r for r in imports)
        if not outside and address not in covered and not _is_padding(code[address]):
            walk(address)
    return found


class _Walk:
    def __init__(
        self, code: Mapping[int, Instruction], machine: Machine, function: Function,
        imports: Sequence[range],
    ) -> None:  # fmt: skip
        self.code, self.machine, self.f = code, machine, function
        self.imports = imports
        self.pending: list[tuple[int, Frame]] = [(function.entry, Frame())]

    def run(self) -> Function:
        while self.pending:
            address, frame = self.pending.pop()
            instruction = self.code.get(address)
            if instruction is None:
                self.f.strays.append(Instruction(address, "(no code here)", (), -1))
            elif (joined := self.joined(instruction, frame)) is not None:
                self.step(instruction, joined)
        return self.f

    def joined(self, i: Instruction, frame: Frame) -> Frame | None:
        """The frame to go on with, None where nothing new is learnt."""
        known = self.f.reached.get(i.address)
        if known is None:
            self.f.reached[i.address] = frame
            return frame
        if known.depth != frame.depth:
            self.f.unknown.append(i)
            return None
        both = {r: d for r, d in known.saved.items() if frame.saved.get(r) == d}
        if both == known.saved:
            return None
        self.f.reached[i.address] = Frame(frame.depth, both)
        return self.f.reached[i.address]

    def step(self, i: Instruction, frame: Frame) -> None:
        kind = self.machine.kind(i)
        if kind == "system":
            self.f.system.append(i)
        if kind in ("return", "stop") or self.strays(i, kind):
            return
        if kind in ("call", "jump") and self.leaves(i, frame) and kind == "jump":
            return
        try:
            after = self.machine.stack(i, frame) if kind == "next" else frame
        except UnknownStack:
            self.f.unknown.append(i)
            return
        self.f.depth = max(self.f.depth, after.depth)
        if kind in ("jump", "branch") and i.target is not None:
            self.pending.append((i.target, after))
        if kind != "jump":
            self.pending.append((i.next, after))

    def strays(self, i: Instruction, kind: str) -> bool:
        """Whether nobody knows where it goes on."""
        computed = kind in ("jump", "branch") and i.target is None
        if computed or kind == "bad":
            self.f.strays.append(i)
        return computed or kind == "bad"

    def leaves(self, i: Instruction, frame: Frame) -> bool:
        """Note what a call or jump calls; whether that is outside of the library."""
        if i.target is None:
            self.f.indirect.append(i)
            return False
        if any(i.target in r for r in self.imports):
            self.f.outside.append(i)
            return True
        if self.machine.kind(i) == "call":
            self.f.calls.append((i.target, frame.depth + self.machine.call_bytes))
        return False


def reachable(found: Mapping[int, Function], entry: int) -> Iterator[Function]:
    """The functions that an entry reaches, itself first."""
    seen: set[int] = set()
    pending = [entry]
    while pending:
        address = pending.pop()
        if address in seen or address not in found:
            continue
        seen.add(address)
        yield found[address]
        pending += [callee for callee, _ in found[address].calls]


def recursion(found: Mapping[int, Function], entry: int) -> list[int]:
    """A chain of calls that comes back to where it began; empty where there is none."""
    done: set[int] = set()

    def visit(address: int, path: list[int]) -> list[int]:
        if address in path:
            return [*path[path.index(address) :], address]
        if address in done:
            return []
        for callee, _ in found[address].calls:
            if cycle := visit(callee, [*path, address]):
                return cycle
        done.add(address)
        return []

    return visit(entry, [])


def stack_bound(found: Mapping[int, Function], entry: int, machine: Machine) -> int:
    """The most bytes of stack that a call of `entry` can use; calls must not recur."""
    known: dict[int, int] = {}

    def bound(address: int) -> int:
        if address not in known:
            f = found[address]
            inner = (depth + bound(callee) for callee, depth in f.calls)
            known[address] = max([f.depth, *inner])
        return known[address]

    return machine.call_bytes + bound(entry) + machine.red_zone
