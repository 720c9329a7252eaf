"""A wheel, installed into an empty environment and used from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import irc

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "irc": "irc",
    "frontends": "irc/frontends",
    "passes": "irc/passes",
    "backends": "irc/backends",
}
INGREDIENTS = (*FOLDERS, "pyproject.toml", "README.md", "LICENSE")
OPTIONAL = {"torch", "torchvision", "onnxruntime", "openvino", "ziglang"}

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs it with nothing of this process's Python path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves build/lib in the source, and would package it again."""
    source = tmp_path_factory.mktemp("source")
    for name in INGREDIENTS:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("dist")
    # Without isolation, because an isolated build fetches setuptools from a package index.
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    built = run(*pip, "--wheel-dir", out, ".", cwd=source)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return path


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel, and a folder to use it from."""

    environment: Path
    elsewhere: Path

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        # -I: neither the current folder nor the user's site-packages.
        return run(self.environment / "bin" / "python", "-I", "-c", code, cwd=self.elsewhere)

    @property
    def packages(self) -> Path:
        (found,) = self.environment.glob("lib/python3.*/site-packages")
        return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Borrows the dependencies from the environment that runs the tests: they are a gigabyte.

    A folder that a .pth file adds has its own .pth files left unread, so the lender's editable
    install, which is one, stays out.
    """
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    it = Installed(environment, tmp_path_factory.mktemp("elsewhere"))
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    done = run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=it.elsewhere)
    assert done.returncode == 0, done.stderr
    (it.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return it


def test_wheel_holds_the_tree(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected


def test_used_from_elsewhere(installed: Installed) -> None:
    done = installed.python("import irc; print(irc.__version__, irc.__file__)")
    assert done.returncode == 0, done.stderr
    version, file = done.stdout.split()
    assert version == irc.__version__
    assert Path(file) == installed.packages / "irc" / "__init__.py"


def test_every_module_imports(installed: Installed) -> None:
    code = f"""
import importlib, pkgutil, irc
for module in pkgutil.walk_packages(irc.__path__, "irc."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {OPTIONAL!r}:
            raise
    print(module.name)
"""
    done = installed.python(code)
    assert done.returncode == 0, done.stderr
    assert {"irc.types", "irc.frontends", "irc.passes", "irc.backends"} <= set(done.stdout.split())


def test_command_is_installed(installed: Installed) -> None:
    done = run(installed.environment / "bin" / "irc", "--help", cwd=installed.elsewhere)
    assert done.returncode == 0, done.stderr
    assert "compile" in done.stdout


@pytest.mark.parametrize("name", ["frontends", "passes", "backends"])
def test_bare_name_is_absent(installed: Installed, name: str) -> None:
    done = installed.python(f"import {name}")
    assert done.returncode == 1
    assert f"ModuleNotFoundError: No module named '{name}'" in done.stderr


@pytest.mark.parametrize("name", ["frontends", "passes", "backends"])
def test_second_copy_is_refused(installed: Installed, name: str) -> None:
    inside = installed.packages / "irc"
    done = installed.python(f"import sys; sys.path.insert(0, {str(inside)!r}); import {name}")
    assert done.returncode == 1
    assert f"\nImportError: this package is 'irc.{name}'" in done.stderr
