import numpy as np

from bench.torch_pt2e import Agreement, section


def test_ties_and_differences_are_counted_apart() -> None:
    torchs = np.array([[1.0, 0.5], [0.5, 0.5], [0.5, 1.0]], np.float32)
    ours = np.array([[1.0, 0.5], [0.5, 1.0], [1.0, 0.5]], np.float32)
    found = Agreement("Q", torchs, ours, np.array([0, 1, 1], np.uint8), unit=0.5)
    assert found.cells() == ["Q", "50.00 %", "1.0", "1 of 3", "1", "66.7 %", "66.7 %"]
    assert "| Q " in section([found])
