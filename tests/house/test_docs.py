"""What the documents name exists: paths, Python names, make targets, links, steps."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import irc

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
WRITTEN = (".venv", ".types", "build", "dist")  # by commands, so absent from a fresh clone
UNPLACED = {"__init__.py", "utils.py"}  # names of files in general, not of one file


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_blocks(text: str, language: str = "") -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for of, block in fenced if of == language]


def quoted(text: str) -> list[str]:
    """What stands in backticks outside code blocks."""
    return re.findall(r"`([^`\n]+)`", without_fences(text))


def paths(text: str) -> list[str]:
    return [
        part
        for part in quoted(text)
        if re.fullmatch(r"[\w./-]+/|[\w./-]+\.(py|md|toml|h|c)", part)
        if part.split("/")[0] not in WRITTEN and part not in UNPLACED
    ]


def python_names(text: str) -> list[str]:
    return [part for part in quoted(text) if re.fullmatch(r"irc(\.\w+)+", part)]


def resolve(dotted: str) -> object:
    """The module, class or function of that name; raises where there is none."""
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def section(text: str, title: str) -> str:
    return re.split(r"^## ", text.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_paths_exist(document: Path) -> None:
    absent = [path for path in paths(document.read_text()) if not (ROOT / path).exists()]
    assert absent == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_python_names_resolve(document: Path) -> None:
    for name in python_names(document.read_text()):
        resolve(name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_resolve(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", without_fences(document.read_text()))
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_make_targets_exist(document: Path) -> None:
    text = document.read_text()
    commands = "\n".join(code_blocks(text)).splitlines()
    named = {
        match[1]
        for command in [*quoted(text), *commands]
        if (match := re.match(r"make ([a-z-]+)", command))
    }
    assert named <= make_targets()


@pytest.mark.parametrize(
    ("title", "steps"),
    [
        ("Add an operator of ONNX or PyTorch", 3), ("Add an op", 4), ("Add a pass", 3),
        ("Add a kernel", 4), ("Add a target", 3),
    ],
)
def test_steps_are_as_many_as_promised(title: str, steps: int) -> None:
    text = section((ROOT / "CONTRIBUTING.md").read_text(), title)
    items = re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]
    assert len(items) == steps
    for item in items:
        assert paths(item) or python_names(item), f"names nothing that can be checked: {item}"


def test_architecture_names_every_file_of_the_language() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    entries = (p for p in (ROOT / "irc").iterdir() if not p.name.startswith("__"))
    names = {f"{p.name}/" if p.is_dir() else p.name for p in entries if p.suffix in ("", ".py")}
    assert {name for name in names if name not in text} == set()


@pytest.mark.parametrize(
    "folder",
    [
        "frontends", "frontends/onnx", "frontends/torch", "passes/float", "passes/quantize",
        "passes/integer", "backends/llvm/code", "backends/llvm/module",
    ],
)
def test_a_package_tells_what_each_of_its_files_is_for(folder: str) -> None:
    tree = ast.parse((ROOT / folder / "__init__.py").read_text())
    told = set(re.findall(r"\w+", ast.get_docstring(tree) or ""))
    assert {p.stem for p in (ROOT / folder).glob("*.py")} - {"__init__"} - told == set()


def test_readme_uses_public_names() -> None:
    (block,) = code_blocks((ROOT / "README.md").read_text(), "python")
    used = {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "irc"
    }
    assert used
    assert used <= set(irc.__all__)


def test_what_is_absent_is_seen() -> None:
    assert paths("see `irc/nowhere.py`, `build/net.h` and `a b.py`") == ["irc/nowhere.py"]
    assert python_names("`irc.value.Value`, `irc`, `irc audit`") == ["irc.value.Value"]
    for absent in ("irc.value.Nothing", "irc.nowhere"):
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            resolve(absent)
