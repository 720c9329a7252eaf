"""The table of what integers keep, on a network that needs no download."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import truth
from bench.fidelity import Row, difference, main, markdown, measure
from bench.subjects import Subject, halved, of_first
from bench.wordpiece import WordPiece
from tests.bench.test_streams import stream


def test_a_network_is_measured_against_float_and_truth(tmp_path: Path) -> None:
    given = stream(tmp_path)
    subject = Subject(
        given.name, given.obtain, given.feeds, given.states, steps=8, calibration=8,
        metric="largest", score=of_first(np.argmax),
    )  # fmt: skip
    row = measure(subject)
    assert row.imported < 1e-4
    assert min(row.sqnr.values()) > 30
    assert row.right[0] == 1.0
    assert row.right[1] >= 0.5
    assert "largest" in markdown([row])


def test_what_a_network_should_say_goes_before_what_float_says(tmp_path: Path) -> None:
    given = stream(tmp_path)
    subject = Subject(
        given.name, given.obtain, given.feeds, given.states, steps=4, calibration=4,
        truth=lambda count, seed: [-1] * count, metric="never", score=of_first(np.argmax),
    )  # fmt: skip
    assert measure(subject).right[:2] == (0.0, 0.0)


def test_a_failure_is_told_below_the_table() -> None:
    text = markdown([Row("lstm", 2, 0.0, {"y": 30.0}, failed="no such thing")])
    assert text.endswith("- lstm: no such thing")


def test_differences_are_relative_to_the_largest_element() -> None:
    wanted: list[Mapping[str, Any]] = [{"y": np.array([100.0, 0.0])}, {"y": np.array([0.0, 1e-9])}]
    found = [{"y": np.array([100.0, 0.0])}, {"y": np.array([1.0, 0.0])}]
    assert difference(found, wanted) == pytest.approx(0.01)


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fidelity", "nothing"])
    assert main() == 1


def test_calibration_and_measurement_share_no_item() -> None:
    items = list(range(20))
    a, b = halved(items, 8, 1), halved(items, 8, 2)
    assert len(a) == len(b) == 8
    assert not set(a) & set(b)


def test_ctc_and_edit_distance() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 0, 1, 2, 2]]
    assert truth.decoded(scores, ["", "a", "b"]) == "aab"
    assert truth.distance("kitten", "sitting") == 3
    assert truth.characters_right(["a b"], ["ac"]) == 0.5


def test_lines_say_what_was_written() -> None:
    first, second = (truth.written_lines(3, 48, 320, 5, words=2) for _ in range(2))
    assert [line.text for line in first] == [line.text for line in second]
    assert first[0].pixels.shape == (48, 320, 3)
    assert all(len(line.text.split()) == 2 for line in first)


def test_neighbours() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    assert truth.neighbours_agree(vectors, ["a", "a", "b", "b"]) == 1.0


def test_bytes_are_cut_and_padded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"  abc ")
    row = truth.ends_of(path, length=4)
    assert row.tolist() == [97, 98, 99, 32, 32, 97, 98, 99]


def test_words_become_pieces() -> None:
    pieces = ("[UNK]", "[CLS]", "[SEP]", "un", "##able", "?")
    words = WordPiece({p: i for i, p in enumerate(pieces)})
    assert words.pieces("Unable? x") == ["un", "##able", "?", "[UNK]"]
    ids, mask = words.batch(["unable"], 6)
    assert ids.tolist() == [[1, 3, 4, 2, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0]]
