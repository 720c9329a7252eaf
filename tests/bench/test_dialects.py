"""The table of dialects, on a network that needs no download."""

import numpy as np
import pytest

from bench.dialects import (
    FORMATS,
    KINDS,
    Row,
    cell,
    dialects,
    markdown,
    measure,
    same_class,
    same_scores,
)
from bench.models import Model, example
from tests.frontends.test_onnx_quantized_models import images


def test_a_tie_may_go_either_way() -> None:
    wanted = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    assert same_class(np.array([[0.0, 5.0, 1.0], [0.0, 1.0, 9.0]]), wanted) == 0.5


def test_scores_are_the_same_where_all_are() -> None:
    wanted = np.array([[1.0, 3.0, 0.0], [0.0, 2.0, 1.5]])
    assert same_scores(np.array([[1.0, 3.0, 0.0], [0.0, 2.0, 1.0]]), wanted) == 0.5


@pytest.mark.slow
def test_every_dialect_of_a_small_network_is_compiled() -> None:
    model = Model(
        "fashion_dscnn", "x", (1, 1, 28, 28), lambda: example("fashion_dscnn.onnx"),
        lambda count, seed: images("fashion_test.npz", 2 * count)[seed % 2 :: 2], trained=True,
    )  # fmt: skip
    rows = list(measure(model, 20))
    assert len(rows) == sum(len(list(dialects(k, c))) for k in KINDS for c in (False, True))
    assert {row.dialect.split()[0] for row in rows} == set(FORMATS)
    assert not any(row.failed for row in rows)
    assert all(row.ours == row.scores == 1.0 for row in rows)


def test_what_is_missing_says_why() -> None:
    row = Row("net", "QDQ u8s8 per tensor", np.nan, np.nan, 1.0, "no such operator")
    assert cell(row) == "no such operator"
    assert "QDQ u8s8 per tensor" in markdown([row])
    assert cell(Row("net", "QOperator", 1.0, np.nan, np.nan)) == "100.0 / – / –"
