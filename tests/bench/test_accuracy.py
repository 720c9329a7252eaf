from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.accuracy import (
    Accuracy,
    accuracy_markdown,
    prepare_all,
    score,
    share_equal,
    sqnr_db,
    top1,
)
from bench.runners import Arrays, Task


def test_top1_is_the_largest_logit() -> None:
    logits = np.array([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]], np.float32)
    assert top1(logits).tolist() == [1, 0]


def test_share_of_equal_elements() -> None:
    assert share_equal(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 0.75


def test_sqnr_in_decibels() -> None:
    wanted = np.full((2, 50), 10.0, np.float32)
    assert sqnr_db(wanted + 1, wanted) == pytest.approx(20.0)
    assert sqnr_db(wanted, wanted) == float("inf")


def test_score_with_and_without_labels() -> None:
    wanted = np.eye(4, dtype=np.float32)
    found = wanted[[0, 1, 2, 0]]
    plain = score("peer", found, wanted, None)
    assert (plain.agreement, plain.accuracy) == (0.75, None)
    labelled = score("peer", found, wanted, np.array([0, 1, 3, 3], np.uint8))
    assert labelled.accuracy == 0.5
    text = accuracy_markdown(Accuracy("net", 4, 16, (plain, labelled), {"gone": "no wheel"}))
    assert "75.00%" in text
    assert "left out: gone: no wheel" in text


class Faulty:
    """A runner that cannot be built, or is absent."""

    def __init__(self, name: str, reason: str = "") -> None:
        self.name = name
        self.reason = reason

    def missing(self) -> str:
        return self.reason

    def build(self, task: Task, folder: Path) -> tuple[Path, ...]:
        raise RuntimeError("boom")

    def facts(self) -> dict[str, float]:
        return {}

    def load(self, task: Task, files: tuple[Path, ...]) -> None:
        raise AssertionError("never built")

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        raise AssertionError("never loaded")


def test_a_failing_runner_does_not_stop_the_others(tmp_path: Path) -> None:
    task = Task("t", tmp_path, "x", (1, 1), np.zeros((1, 1), np.float32))
    runners = [Faulty("bad"), Faulty("gone", "no wheel")]
    assert prepare_all(runners, task, tmp_path) == (
        [],
        {"bad": "failed: RuntimeError: boom", "gone": "no wheel"},
    )
