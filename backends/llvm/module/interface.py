"""The C interface of a library: its name, its tensors under C names, its workspace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count

from irc.errors import CompileError
from irc.graph import Graph
from irc.names import identifier
from irc.plan import aligned
from irc.streams import State
from irc.types import DType, TensorType

ALIGN = 64
C_TYPES: dict[DType, str] = {
    DType.I8: "int8_t", DType.U8: "uint8_t", DType.I16: "int16_t", DType.U16: "uint16_t",
    DType.I32: "int32_t", DType.U32: "uint32_t", DType.I64: "int64_t", DType.U64: "uint64_t",
    DType.BOOL: "uint8_t",
}  # fmt: skip
_KEYWORDS = """alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t
    char32_t char8_t class co_await co_return co_yield compl concept const const_cast consteval
    constexpr constinit continue decltype default delete do double dynamic_cast else enum explicit
    export extern false float for friend goto if inline int long mutable namespace new noexcept not
    not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires
    restrict return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof union unsigned using virtual void
    volatile wchar_t while xor xor_eq"""
KEYWORDS = frozenset(_KEYWORDS.split())
"""Words that are no identifiers in C or C++."""
RESERVED = frozenset({
    *KEYWORDS, *C_TYPES.values(), "workspace", "executor", "NULL", "errno", "linux", "unix",
})
"""Words that no parameter can be called: other parameters, types, macros of compilers and libc."""


@dataclass(frozen=True)
class Port:
    """An input or output of the library: its model name, its C argument, its type."""

    kind: str
    name: str
    c_name: str
    type: TensorType
    state: State | None = None
    """What it is a part of: states are integers, whatever the rest comes as."""

    @property
    def c_type(self) -> str:
        """C type of an element."""
        return C_TYPES[self.type.dtype]

    @property
    def quantized(self) -> bool:
        """Whether it stands for reals, so that the float edge converts it."""
        return self.type.quant is not None

    @property
    def missing(self) -> int | None:
        """The integer that stands for what is missing, if there is one."""
        return None if self.type.quant is None else self.type.quant.missing

    @property
    def by_columns(self) -> bool:
        """Whether each of several columns has a scale of its own."""
        return self.type.quant is not None and len(self.type.quant.scales) > 1


@dataclass(frozen=True)
class Interface:
    """All that a caller must know. Offsets are where the float edge and the self test keep the
    integer form of each port in the workspace."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    offsets: tuple[int, ...] = ()
    workspace: int = ALIGN
    task_bytes: int = 0
    """Bytes more that each task but the first needs."""
    threads: int = 1
    """Of its own pool, with the caller's."""

    @property
    def workspace_bytes(self) -> int:
        """What `NAME_run` needs in all."""
        return self.workspace + (self.threads - 1) * self.task_bytes

    @property
    def ports(self) -> tuple[Port, ...]:
        """Inputs, then outputs: the order of arguments."""
        return (*self.inputs, *self.outputs)

    @classmethod
    def of(cls, graph: Graph, name: str) -> Interface:
        """The interface of a graph under a name; raises `CompileError` where C has none for it."""
        check_name(name)
        taken = set(RESERVED)
        coming = {s.input: s for s in graph.states}
        going = {s.output: s for s in graph.states}
        inputs = _ports("input", graph.input_types.items(), taken, coming)
        outputs = _ports("output", graph.output_types.items(), taken, going)
        return cls(name, inputs, outputs)

    @property
    def states(self) -> tuple[tuple[Port, Port], ...]:
        """Of each state the input, and the output that goes into it in the next run."""
        after = {p.state: p for p in self.outputs}
        return tuple((p, after[p.state]) for p in self.inputs if p.state is not None)

    def with_workspace(self, arena: int, task_bytes: int = 0, threads: int = 1) -> Interface:
        """The same with memory laid out: the arena, then every port, then what tasks need that
        run beside the first."""
        start, offsets = aligned(arena, ALIGN), []
        for port in self.ports:
            offsets.append(start)
            start += aligned(port.type.nbytes, ALIGN)
        return Interface(
            self.name, self.inputs, self.outputs, tuple(offsets), max(start, ALIGN), task_bytes,
            threads,
        )  # fmt: skip


def _ports(
    kind: str,
    types: Iterable[tuple[str, TensorType]],
    taken: set[str],
    states: Mapping[str, State],
) -> tuple[Port, ...]:
    listed = list(types)
    ports: list[Port] = []
    for index, (name, type_) in enumerate(listed):
        if type_.dtype not in C_TYPES:
            raise CompileError(f"{kind} {name} is {type_}: only integers cross the interface")
        word = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_")
        if len(listed) == 1:
            word = kind
        else:
            whole = [] if not word or word[0].isdigit() else [word]
            joined = [f"{kind}_{word}"] if word else []
            word = fresh(chain(whole, joined, (f"{kind}{n}" for n in count(index))), taken)
        ports.append(Port(kind, name, word, type_, states.get(name)))
    return tuple(ports)


def fresh(words: Iterable[str], taken: set[str]) -> str:
    """The first of some words that is not taken; from now on it is."""
    word = next(w for w in words if w not in taken)
    taken.add(word)
    return word


def check_name(name: str) -> None:
    """Raise `CompileError` for a library's name that C can't have, proposing one."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) and name.lower() not in KEYWORDS:
        return
    made = identifier(name)
    better = f"{made}_net" if made.lower() in KEYWORDS else made
    raise CompileError(
        f"{name!r} can't name a library: a C identifier is needed that begins with a letter"
        f" and is no keyword; give one, as in --name {better} or"
        f" model.save(folder, name={better!r})"
    )
