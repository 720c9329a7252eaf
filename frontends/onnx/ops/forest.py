"""Decision trees as ONNX lists them, and the arrays that `irc.ops.trees` walks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from irc.errors import ModelError
from irc.ops.trees import stored
from irc.types import Array

Ref = tuple[str, int]
"""A branch or a leaf, by its number."""
Row = Mapping[int, float]
"""What a leaf adds to which target."""
PADDING = 2
"""Groups of unlike numbers of trees are filled up to so many times as many trees at most."""


@dataclass(frozen=True)
class Arrays:
    """The operands of a `tree_ensemble`, bias aside, and how deep the deepest tree is."""

    feature: Array
    threshold: Array
    inclusive: Array
    missing: Array
    children: Array
    roots: Array
    leaves: Array
    depth: int


@dataclass(frozen=True)
class Test:
    """What a branch asks of a feature, in the model's words; `tracks`: a missing one passes."""

    mode: str
    feature: int
    value: float
    members: Sequence[float] = ()
    tracks: bool = False


@dataclass
class Forest:
    """Trees whose branches all ask what lies beyond a threshold, however the model compares."""

    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    inclusive: list[bool] = field(default_factory=list)
    missing: list[bool] = field(default_factory=list)
    children: list[tuple[Ref, Ref]] = field(default_factory=list)
    leaves: list[Row] = field(default_factory=list)
    roots: list[Ref] = field(default_factory=list)

    def leaf(self, row: Row) -> Ref:
        """A new leaf."""
        self.leaves.append(row)
        return "leaf", len(self.leaves) - 1

    def branch(
        self, feature: int, threshold: float, low: Ref, high: Ref, *, inclusive: bool = False,
        missing: bool = False,
    ) -> Ref:  # fmt: skip
        """A new branch: to `high` where the feature exceeds the threshold, equals one that is
        inclusive, or is `missing` and so wanted, else to `low`."""
        self.feature.append(feature)
        self.threshold.append(threshold)
        self.inclusive.append(inclusive)
        self.missing.append(missing)
        self.children.append((low, high))
        return "branch", len(self.feature) - 1

    def compared(self, test: Test, yes: Ref, no: Ref) -> Ref:
        """The branches that tell whether a row passes a test; the last one made stands for all."""
        feature, value, tracks = test.feature, test.value, test.tracks
        match test.mode:
            case "BRANCH_LEQ" | "BRANCH_LT" as mode:
                strict = mode == "BRANCH_LT"
                return self.branch(feature, value, yes, no, inclusive=strict, missing=not tracks)
            case "BRANCH_GTE" | "BRANCH_GT" as mode:
                met = mode == "BRANCH_GTE"
                return self.branch(feature, value, no, yes, inclusive=met, missing=tracks)
            case "BRANCH_EQ":
                return self._member(feature, [value], yes, no, missing=not tracks)
            case "BRANCH_NEQ":
                return self._member(feature, [value], no, yes, missing=True)
            case "BRANCH_MEMBER":
                return self._member(feature, test.members, yes, no, missing=not tracks)
        raise ModelError(f"nodes_modes: {test.mode!r} is no comparison")

    def _member(
        self, feature: int, members: Sequence[float], yes: Ref, no: Ref, *, missing: bool
    ) -> Ref:
        """A search: below, at and above each member lie regions, every other one a member's."""
        values = sorted(set(members))
        if not values:
            return no
        tests = [(value, at) for value in values for at in (True, False)]
        lost = len(tests) if missing else 1

        def search(first: int, last: int) -> Ref:
            """Among regions first to last; test i tells those up to i from those above."""
            if first == last:
                return yes if first % 2 else no
            i = (first + last) // 2
            low, high = search(first, i), search(i + 1, last)
            value, inclusive = tests[i]
            return self.branch(feature, value, low, high, inclusive=inclusive, missing=lost > i)

        return search(0, len(tests))

    def spoken(self) -> set[int]:
        """The targets that leaves add to."""
        return {target for row in self.leaves for target in row}

    def sure(self) -> set[int]:
        """The targets that some tree adds to in each of its leaves."""
        return {t for root in self.roots for t in set.intersection(*self._reached(root))}

    def arrays(self, targets: int) -> Arrays:
        """As arrays; trees in groups by their target where each has one. Raises `ModelError`
        where branches lead in a circle, or there are no trees."""
        if not self.roots:
            raise ModelError("it has no trees")
        groups = self._groups(targets)
        if not self.feature:
            self.branch(0, 0.0, self.roots[0], self.roots[0])
        count = len(self.feature)

        def number(ref: Ref) -> int:
            return ref[1] + (count if ref[0] == "leaf" else 0)

        children = np.asarray([[number(r) for r in pair] for pair in self.children], np.int64)
        roots = np.asarray([[number(r) for r in group] for group in groups], np.int64)
        grouped = len(groups) > 1
        leaves = np.zeros((len(self.leaves), 1 if grouped else targets), np.float32)
        for at, row in enumerate(self.leaves):
            for target, weight in row.items():
                leaves[at, 0 if grouped else target] += weight
        return Arrays(
            stored(np.asarray(self.feature)), np.asarray(self.threshold, np.float32),
            np.asarray(self.inclusive, np.bool_), np.asarray(self.missing, np.bool_),
            stored(children), stored(roots), leaves, _depth(children, roots),
        )  # fmt: skip

    def _groups(self, targets: int) -> list[list[Ref]]:
        """The roots by target; all in one group where trees have several."""
        found: list[list[Ref]] = [[] for _ in range(targets)]
        for root in self.roots:
            reached = self._targets(root)
            if targets == 1 or len(reached) > 1:
                return [self.roots]
            found[min(reached, default=0)].append(root)
        most = max(map(len, found))
        if most * targets > PADDING * len(self.roots):
            return [self.roots]
        if any(len(group) < most for group in found):
            none = self.leaf({})
            found = [group + [none] * (most - len(group)) for group in found]
        return found

    def _targets(self, root: Ref) -> set[int]:
        """The targets that a tree adds to."""
        return set[int]().union(*self._reached(root))

    def _reached(self, root: Ref) -> list[set[int]]:
        """The targets of each leaf of a tree."""
        stack, seen, found = [root], {root}, list[set[int]]()
        while stack:
            kind, at = stack.pop()
            if kind == "leaf":
                found.append(set(self.leaves[at]))
                continue
            more = {r for r in self.children[at] if r not in seen}
            seen |= more
            stack += more
        return found


def _depth(children: Array, roots: Array) -> int:
    """The steps from a root to the furthest leaf."""
    count, depth = len(children), 0
    here = np.unique(roots)
    while (here := here[here < count]).size:
        if depth == count:
            raise ModelError("its nodes lead in a circle")
        here = np.unique(children[here])
        depth += 1
    return depth
