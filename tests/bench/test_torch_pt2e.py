import numpy as np

from bench.torch_pt2e import Agreement, section


def test_ties_and_differences_are_counted_apart() -> None:
    torchs = np.array([[1.0, 0.5], [0.5, 0.5], [0.5, 1.5]], np.float32)
    plain = np.array([[1.0, 0.5], [0.5, 0.5], [1.5, 1.0]], np.float32)
    ours = np.array([[1.0, 0.5], [0.5, 1.0], [2.0, 0.5]], np.float32)
    labels = np.array([0, 1, 1], np.uint8)
    exact = np.array([[1.0, 0.5], [0.5, 0.75], [0.5, 1.5]])
    found = Agreement("N", "Q", torchs, plain, exact, ours, labels, unit=0.5)
    assert found.cells() == [
        "N", "Q", "66.67 %", "3.0", "2.0", "0.5", "3.0", "1 of 3", "1", "2 of 3", "66.7 %", "66.7 %"
    ]  # fmt: skip
    assert "| N " in section([found])
