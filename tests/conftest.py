"""What all tests share: hypothesis profiles and golden texts."""

import gc
import os
import re
from collections.abc import Callable
from pathlib import Path

# Small matrices: threads of BLAS and torch would mostly wait for each other. Must come before they
# are imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

import irc

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"

# The packages beside this folder are what is tested, even if another checkout is installed.
irc.__path__ = [str(ROOT / "irc"), str(ROOT)]

# Compiling takes as long as it takes: no deadlines. In CI the same examples every time, so that a
# failure belongs to the change that it is seen on.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden with what tests print"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long is slow, whoever forgot to say so."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """What stands after imports stays: the collector need not look at it again and again, which
    took an eighth of the time."""
    gc.collect()
    gc.freeze()


def golden_path(test_file: Path, test_name: str) -> Path:
    """Where a test's text stands; a parameter's odd characters become dashes."""
    return GOLDEN / test_file.stem / (re.sub(r"[^\w.=,]+", "-", test_name).strip("-") + ".txt")


def compare_golden(path: Path, text: str, *, update: bool) -> None:
    """Fails unless `path` holds `text`; with `update`, writes it there instead."""
    if not text.endswith("\n"):
        text += "\n"
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    if not path.exists():
        pytest.fail(f"no golden text {path}: `make golden` writes it")
    assert text == path.read_text(encoding="utf-8"), (
        f"differs from {path}; if it should, `make golden` rewrites it"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`golden(text)` compares text with tests/golden/<test file>/<test>.txt, once per test."""
    path = golden_path(request.path, request.node.name)
    update = bool(request.config.getoption("--update-golden"))
    compared = False

    def compare(text: str) -> None:
        nonlocal compared
        assert not compared, f"one golden text per test: {path} is taken"
        compared = True
        compare_golden(path, text, update=update)

    return compare
