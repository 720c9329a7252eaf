"""Calibration takes what training loops hold: batches with labels, tensors, DataLoaders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.errors import DataError
from irc.graph import Graph
from irc.ops.core import Input
from irc.ops.elementwise import Add
from irc.passes.calibration.data import batches
from irc.types import DType

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = -X
LABELS = np.arange(6)


def one() -> Graph:
    x = Input(DType.F32, (1, 2), name="x")
    return Graph("one", (x,), (x,), ("y",))


def two() -> Graph:
    a, b = (Input(DType.F32, (1, 2), name=n) for n in "ab")
    return Graph("two", (a, b), (Add(a, b),), ("y",))


def seen(graph: Graph, source: Any) -> list[Any]:
    return [np.concatenate([f[v.name] for f in batches(graph, source)]) for v in graph.inputs]


@pytest.mark.parametrize(
    "items",
    [
        [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])],
        [[X[:4], LABELS[:4]], [X[4:], LABELS[4:]]],
        [(x, int(n)) for x, n in zip(X, LABELS, strict=True)],
        [((X[:4],), LABELS[:4]), ((X[4:],), LABELS[4:])],
        [({"x": X[:4]}, LABELS[:4]), ({"x": X[4:]}, LABELS[4:])],
        [list(X[:3]), list(X[3:])],
        [{"x": X[:4], "labels": LABELS[:4]}, {"labels": LABELS[4:], "x": X[4:]}],
    ],
    ids=["tuples", "lists", "samples", "nested", "mappings", "lists of samples", "named"],
)
def test_labels_are_left_out(items: Any) -> None:
    (x,) = seen(one(), items)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("items", [[(X, Y, LABELS)], [((X, Y), LABELS)], [(X, Y)]])
def test_inputs_come_in_their_order(items: Any) -> None:
    a, b = seen(two(), items)
    np.testing.assert_array_equal(a, X)
    np.testing.assert_array_equal(b, Y)


def test_what_stands_for_no_input_is_refused_where_all_data_has_names() -> None:
    with pytest.raises(DataError, match=r"for \['labels', 'x'\], one takes \['x'\]"):
        seen(one(), {"x": X, "labels": LABELS})
    with pytest.raises(DataError, match=r"for \['y'\], one takes \['x'\]"):
        seen(one(), [{"y": X}])


def test_too_few_inputs_are_refused() -> None:
    with pytest.raises(DataError, match="1 arrays is given, two takes"):
        seen(two(), [(X,)])


def test_tensors_and_loaders() -> None:
    torch: Any = pytest.importorskip("torch", reason="DataLoaders are PyTorch's")
    tensor = torch.from_numpy(X.copy()).requires_grad_()
    dataset = torch.utils.data.TensorDataset(tensor.detach(), torch.from_numpy(LABELS))
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    for source in (tensor, [tensor], {"x": tensor}, [{"x": tensor.bfloat16()}], loader, dataset):
        (x,) = seen(one(), source)
        np.testing.assert_array_equal(x, X)
