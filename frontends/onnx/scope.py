"""The values of a graph by name. Tensors that the file stores are read when a node asks for them
and forgotten after the last one: most live on only in the form that their op takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

from onnx import NodeProto, TensorProto

from irc.frontends.onnx.lists import Entry
from irc.frontends.onnx.structure import reads
from irc.ops.core import Const
from irc.types import Array


class Scope(MutableMapping[str, Entry]):
    """A graph's values, and behind them those of the graph around it."""

    def __init__(
        self, stored: Iterable[TensorProto], array: Callable[[TensorProto, str, bool], Array],
        outer: Mapping[str, Entry] | None = None,
    ) -> None:  # fmt: skip
        self.stored = {t.name: t for t in stored}
        self.array = array
        self.outer: Mapping[str, Entry] = {} if outer is None else outer
        self.known: dict[str, Entry] = {}
        self.left: Counter[str] = Counter()
        self.chosen: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Entry:
        if name in self.known:
            return self.known[name]
        if name not in self.stored:
            return self.outer[name]
        array = self.array(self.stored[name], f"initializer {name!r}", name in self.chosen)
        self.known[name] = Const(array, name=name)
        return self.known[name]

    def __setitem__(self, name: str, value: Entry) -> None:
        self.known[name] = value

    def __delitem__(self, name: str) -> None:
        del self.known[name]

    def __contains__(self, name: object) -> bool:
        return name in self.known or name in self.stored or name in self.outer

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.known, *self.stored, *self.outer)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def inner(self) -> Scope:
        """An empty one inside of this."""
        return Scope((), self.array, self)

    def expect(self, nodes: Iterable[NodeProto], outputs: Iterable[str]) -> None:
        """Tell who is going to read: these nodes, each of them once, and whoever wants outputs.
        What only choices read may be no number: it stands for what is never chosen."""
        pairs = [(name, node.op_type) for node in nodes for name in reads(node)]
        self.left = Counter(name for name, _ in pairs)
        others = {name for name, op_type in pairs if op_type != "Where"}
        self.chosen = frozenset(self.left.keys() - others)
        self.left.update(outputs)

    def done(self, node: NodeProto) -> None:
        """A node has read: stored tensors that nobody else will read are forgotten."""
        for name in reads(node):
            self.left[name] -= 1
            if self.left[name] <= 0 and name in self.stored:
                self.known.pop(name, None)
