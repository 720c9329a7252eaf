"""ONNX's own cases: right numbers, or a clear refusal; never anything else."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import pytest

from tests.onnx_conformance.cases import STORED, Case, light_cases, node_cases, stored_cases
from tests.onnx_conformance.table import Table

AT_LEAST = 1650
"""Node cases that pass today; raise it with what is added."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cases overflow on purpose
        yield


def table_of(cases: Iterable[Case], *, integers: bool = False) -> Table:
    table = Table()
    table.judge(cases, integers=integers)
    failed = [f"{case.name}: {verdict.reason}" for case, verdict in table.failures]
    assert not failed, "\n".join(failed)
    return table


def test_all_cases_of_operators() -> None:
    table = table_of(node_cases())
    assert sum(row.passed for row in table.rows.values()) >= AT_LEAST


@pytest.mark.long
def test_integer_forms_of_operators() -> None:
    """What can't be quantized is refused, as the table says of it; nothing else ends a case."""
    rows = table_of(node_cases(), integers=True).rows.values()
    assert sum(row.integers[True] for row in rows) > sum(row.integers[False] for row in rows) > 0


@pytest.mark.parametrize("kind", STORED)
def test_models_that_exporters_wrote(kind: str) -> None:
    (counts,) = table_of(stored_cases(kind)).kinds.values()
    passed = counts.total() - counts["refused"]
    assert passed >= {"simple": 15, "pytorch-converted": 82, "pytorch-operator": 35}[kind]


@pytest.mark.slow
def test_well_known_nets() -> None:
    """With random weights, against onnxruntime."""
    (counts,) = table_of(light_cases()).kinds.values()
    assert counts == {"passed": 9}
