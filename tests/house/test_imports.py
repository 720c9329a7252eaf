"""Who may import whom: `irc` none of its siblings (its driver may, inside functions), the siblings
`irc` and never each other, `bench` only the public names of `irc`."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIBLINGS = ("frontends", "passes", "backends")
FOLDERS = {"irc": "irc", **{name: f"irc.{name}" for name in SIBLINGS}, "bench": "bench"}
COMPOSITION_ROOT = "irc.driver"


@dataclass(frozen=True)
class Import:
    """One imported name: `target` is dotted, `lazy` says that it stands inside a function."""

    module: str
    target: str
    line: int
    lazy: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(root: Path, path: Path) -> str:
    folder, *rest = path.relative_to(root).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in rest if part != "__init__")])


def imports_of(root: Path, path: Path) -> Iterator[Import]:
    """All imports of a file, relative ones resolved, those by `import_module("…")` too."""
    module = module_name(root, path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    inside = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        for target in targets(node, package):
            yield Import(module, target, getattr(node, "lineno", 0), id(node) in inside)


def targets(node: ast.AST, package: str) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=source, names=names, level=level):
            return [f"{absolute(source or '', level, package)}.{alias.name}" for alias in names]
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
            called = ast.unparse(function).rpartition(".")[2]
            if called in ("import_module", "__import__"):
                level = len(name) - len(name.lstrip("."))
                return [absolute(name[level:], level, package)]
    return []


def absolute(source: str, level: int, package: str) -> str:
    if level == 0:
        return source
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *filter(None, [source])])


def folder_of(dotted: str) -> str | None:
    """The folder a dotted name lives in: `irc.passes.fold` in passes, `irc.types` in irc."""
    top, *rest = dotted.split(".")
    if top == "irc":
        return rest[0] if rest and rest[0] in SIBLINGS else "irc"
    return top if top in FOLDERS else None


def public_names(root: Path) -> set[str]:
    tree = ast.parse((root / "irc" / "__init__.py").read_text(encoding="utf-8"))
    names = {"__version__"}
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                names |= set(ast.literal_eval(value))
    return names


def allowed(found: Import, public: set[str]) -> bool:
    source, target = folder_of(found.module), folder_of(found.target)
    if found.target.split(".")[0] in SIBLINGS:  # a bare name would be a second copy
        return False
    if target is None or target == source:
        return True
    if source == "bench":
        return found.target == "irc" or found.target.removeprefix("irc.") in public
    if source == "irc":
        root = f"{found.module}.".startswith(f"{COMPOSITION_ROOT}.")
        return root and found.lazy and target in SIBLINGS
    return target == "irc"


def violations(root: Path) -> list[str]:
    public = public_names(root)
    return [
        str(found)
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        for found in imports_of(root, path)
        if not allowed(found, public)
    ]


def test_imports_keep_their_direction() -> None:
    assert violations(ROOT) == []


def test_frontends_know_nothing_of_each_other() -> None:
    folder = ROOT / "frontends"
    for path in sorted(folder.rglob("*.py")):
        own = path.relative_to(folder).parts[0]
        for found in imports_of(ROOT, path):
            read = found.target.removeprefix("irc.frontends.").split(".")[0]
            ours = found.target.startswith("irc.frontends.") and read in ("onnx", "torch")
            assert not ours or read == own, str(found)


@pytest.mark.parametrize("name", ["passes", "backends/llvm", "backends/llvm/kernels"])
def test_families_import_those_above_them(name: str) -> None:
    """In the order in which their package lists them."""
    folder, package = ROOT / name, f"irc.{name.replace('/', '.')}"
    listed = re.findall(r"^    (\w+)/", (folder / "__init__.py").read_text(), re.MULTILINE)
    families = [path.parent.name for path in folder.glob("*/__init__.py")]
    assert sorted(listed) == sorted(families)
    for place, family in enumerate(listed):
        for path in sorted((folder / family).rglob("*.py")):
            for found in imports_of(ROOT, path):
                below = found.target.removeprefix(f"{package}.").split(".")[0]
                assert below not in listed[place + 1 :], str(found)


SOUND = {
    "irc/__init__.py": "__all__ = ['load']\nfrom irc.driver import load\n",
    "irc/types.py": "import numpy as np\n",
    "irc/ops/__init__.py": "from ..types import DType\n",
    "irc/driver.py": "def load():\n    from irc.frontends import onnx\n",
    "irc/driver/compiling.py": "def compile():\n    from irc.backends import llvm\n",
    "frontends/__init__.py": "",
    "frontends/onnx.py": "import onnx\nfrom irc.types import DType\nfrom . import shapes\n",
    "frontends/onnx_ops/conv.py": "from ..onnx import row\nfrom irc import ops\n",
    "passes/fold.py": "import irc\nfrom irc.passes import fuse\n",
    "backends/llvm/emit.py": "from ..numba import loops\nfrom irc.loops import Loop\n",
    "bench/__main__.py": "import irc\nfrom irc import load, __version__\nfrom bench import cache\n",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    assert violations(plant(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("path", "text", "target"),
    [
        ("irc/types.py", "import irc.passes", "irc.passes"),
        ("irc/types.py", "from irc import backends", "irc.backends"),
        ("irc/types.py", "from .frontends.onnx import load", "irc.frontends.onnx.load"),
        ("irc/types.py", "def f():\n    from irc.passes import fold", "irc.passes.fold"),
        ("irc/types.py", "import importlib\nimportlib.import_module('irc.passes')", "irc.passes"),
        ("irc/ops/conv.py", "from ..backends import numba", "irc.backends.numba"),
        ("irc/driver.py", "from irc.passes import fold", "irc.passes.fold"),
        ("irc/driver.py", "def f():\n    import bench", "bench"),
        ("irc/driver/forms.py", "from irc.passes import fold", "irc.passes.fold"),
        ("irc/drivers.py", "def f():\n    from irc.passes import fold", "irc.passes.fold"),
        ("frontends/onnx.py", "from irc.passes import fold", "irc.passes.fold"),
        ("frontends/onnx_ops/conv.py", "from ...passes import fold", "irc.passes.fold"),
        ("passes/fold.py", "import frontends", "frontends"),
        ("passes/fold.py", "from passes import fuse", "passes.fuse"),
        ("irc/driver.py", "def f():\n    import passes", "passes"),
        ("passes/fold.py", "def f():\n    import irc.backends.llvm", "irc.backends.llvm"),
        ("backends/llvm/emit.py", "from ...passes.plan import plan", "irc.passes.plan.plan"),
        ("bench/__main__.py", "from irc import types", "irc.types"),
        ("bench/__main__.py", "import irc.types", "irc.types"),
        ("bench/__main__.py", "from irc.passes import fold", "irc.passes.fold"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, path: str, text: str, target: str) -> None:
    root = plant(tmp_path, {**SOUND, path: text})
    line = text.count("\n") + 1
    module = module_name(root, root / path)
    assert violations(root) == [f"{module}:{line} imports {target}"]
