"""The golden fixture fails when it should, and every golden text belongs to a test."""

import ast
from pathlib import Path

import pytest

from tests.conftest import GOLDEN, compare_golden, golden_path

TESTS = Path(__file__).parents[1]


def test_path_is_file_and_test() -> None:
    path = golden_path(Path("tests/passes/float/test_fold.py"), "test_adds[relu-1 x 1]")
    assert path == GOLDEN / "test_fold" / "test_adds-relu-1-x-1.txt"


def test_update_then_compare(tmp_path: Path) -> None:
    path = tmp_path / "new" / "text.txt"
    compare_golden(path, "graph @g() {}", update=True)
    compare_golden(path, "graph @g() {}", update=False)
    with pytest.raises(AssertionError, match="make golden"):
        compare_golden(path, "graph @h() {}", update=False)


def test_missing_text_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="no golden text"):
        compare_golden(tmp_path / "absent.txt", "text", update=False)
    assert not (tmp_path / "absent.txt").exists()


def test_every_text_has_its_test() -> None:
    orphans = [
        str(text.relative_to(TESTS))
        for text in GOLDEN.rglob("*.txt")
        if text.stem.split("-")[0] not in golden_tests(text.parent.name)
    ]
    assert orphans == []


def golden_tests(stem: str) -> list[str]:
    """Names of the tests in the one test file called `stem` that take the `golden` fixture."""
    (source,) = TESTS.rglob(f"{stem}.py")
    return [
        node.name
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and "golden" in [a.arg for a in node.args.args]
    ]
