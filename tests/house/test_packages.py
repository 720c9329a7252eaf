"""The package list of pyproject.toml names the tree, no more and no less."""

import fnmatch
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "irc": "irc",
    "irc.frontends": "frontends",
    "irc.passes": "passes",
    "irc.backends": "backends",
}


def packages_in_tree(root: Path) -> set[str]:
    """Every folder with Python in it, by the name that it installs under."""
    found = set()
    for package, folder in FOLDERS.items():
        for path in (root / folder).rglob("*.py"):
            inner = path.parent.relative_to(root / folder).parts
            found.add(".".join([package, *inner]))
    return found


def setuptools_table() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["tool"]["setuptools"]
    return table


def folder_of(package: str) -> Path:
    top = next(name for name in sorted(FOLDERS, key=len, reverse=True) if package.startswith(name))
    return ROOT / FOLDERS[top] / package.removeprefix(top).strip(".").replace(".", "/")


def test_list_is_the_tree() -> None:
    table = setuptools_table()
    assert set(table["packages"]) == packages_in_tree(ROOT)
    assert len(table["packages"]) == len(set(table["packages"]))
    assert table["package-dir"] == FOLDERS


def test_every_package_has_an_init() -> None:
    missing = [p for p in packages_in_tree(ROOT) if not (folder_of(p) / "__init__.py").is_file()]
    assert missing == []


def test_every_data_file_is_packaged() -> None:
    patterns = setuptools_table()["package-data"]["*"]
    left_out = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
        if not any(fnmatch.fnmatch(path.name, pattern.removeprefix("**/")) for pattern in patterns)
    ]
    assert left_out == []


def test_a_forgotten_folder_is_seen(tmp_path: Path) -> None:
    for name in ("irc/types.py", "passes/quantize/scales.py", "backends/llvm/kernels/gemm.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert packages_in_tree(tmp_path) == {
        "irc",
        "irc.passes.quantize",
        "irc.backends.llvm.kernels",
    }
