"""Top-1 accuracy of the float model and of its integer form on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from irc.errors import DataError
from irc.graph import Graph, evaluate
from irc.types import Array

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Accuracy:
    """Shares of samples: right in float, right in integers, alike in both."""

    count: int
    real: float
    integer: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"top-1 accuracy on {self.count} samples: float {self.real:.2%}, integer"
            f" {self.integer:.2%}, the same class on {self.agreement:.2%}"
        )


def accuracy(
    graph: Graph,
    integer: Run,
    samples: Iterable[Mapping[str, Array]],
    labels: Array,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Measure over `samples`, feeds of `graph`'s inputs; `labels` holds one class per image, in
    order (a feed may be a batch). Raises `DataError` where their numbers differ."""
    real: list[Array] = []
    ours: list[Array] = []
    for done, sample in enumerate(samples, 1):
        real.append(_classes(evaluate(graph, sample)))
        ours.append(_classes(integer(sample)))
        if progress is not None:
            progress(done)
    a, b = np.concatenate(real), np.concatenate(ours)
    if len(a) != len(labels):
        raise DataError(f"{len(labels)} labels for {len(a)} samples")
    return Accuracy(
        len(a), float(np.mean(a == labels)), float(np.mean(b == labels)), float(np.mean(a == b))
    )


def _classes(outputs: Mapping[str, Array]) -> Array:
    """The first output's greatest entry, per sample."""
    first = next(iter(outputs.values()))
    if first.ndim < 2:
        raise DataError("accuracy needs an output of one score per class, samples first")
    best: Array = np.argmax(first.reshape(len(first), -1), axis=1)
    return best
