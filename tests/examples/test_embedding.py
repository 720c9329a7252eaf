"""What the examples' README says of CMake, pkg-config and C++ works as it stands there."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import irc

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow


def block(language: str) -> str:
    text = (EXAMPLES / "README.md").read_text()
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with build/net/ and examples/main.c, as the README assumes."""
    root = tmp_path_factory.mktemp("project")
    graph = irc.load(EXAMPLES / "models" / "fashion_dscnn.onnx")
    irc.compile(irc.quantize(graph, "random:2")).save(root / "build" / "net", name="net")
    shutil.copytree(EXAMPLES, root / "examples", ignore=shutil.ignore_patterns("models", "data"))
    (root / "images.u8").write_bytes(np.zeros(2 * 784, np.uint8).tobytes())
    return root


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
@pytest.mark.parametrize("target", ["net::net", "net::shared"])
def test_cmake(project: Path, target: str) -> None:
    (project / "CMakeLists.txt").write_text(block("cmake").replace("net::net)", f"{target})"))
    out = f"out-{target.replace('::', '-')}"
    run(["cmake", "-S", ".", "-B", out], project)
    run(["cmake", "--build", out], project)
    run([f"{out}/app", "images.u8"], project)


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config")
def test_pkg_config(project: Path) -> None:
    options = "-Wl,-rpath,$PWD/build/net $(pkg-config --cflags --libs net)"
    command = f"cc examples/main.c {options} -o main"
    run(["env", "PKG_CONFIG_PATH=build/net", "sh", "-c", command], project)
    run(["./main", "images.u8"], project)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_cpp(project: Path) -> None:
    (project / "app.cpp").write_text(block("cpp"))
    run(["c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Ibuild/net", "-c",
         "app.cpp"], project)  # fmt: skip
