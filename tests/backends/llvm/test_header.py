"""The C interface: names, macros, and files that other build systems read."""

import re
import subprocess
from pathlib import Path

import pytest

from irc.backends.llvm.module.header import cmake_config, header, pkg_config
from irc.backends.llvm.module.interface import Interface, check_name
from irc.errors import CompileError
from irc.graph import Graph
from irc.ops.columns import QColumns
from irc.ops.core import Input
from irc.types import DType, Quant, TensorType
from tests.backends.llvm.nets import small_net


def interface(inputs: list[str], outputs: list[str]) -> Interface:
    made = tuple(Input.of(TensorType(DType.U8, (1, 2, 3), Quant(0.5, 3)), n) for n in inputs)
    graph = Graph("g", made, (made[0],) * len(outputs), tuple(outputs))
    return Interface.of(graph, "net").with_workspace(1000)


@pytest.mark.parametrize("compiler", ["gcc -std=c99 -x c", "g++ -std=c++11 -x c++"])
@pytest.mark.parametrize("float_io", [True, False])
def test_compilers_take_the_header(tmp_path: Path, compiler: str, float_io: bool) -> None:
    inputs = ["a", "int", "a-b", "a.b", "executor", "uint8_t", "linux", "A_B", "a9", "input9", "a."]
    text = header(interface(inputs, ["x", "2"]), float_io=float_io)
    macros = re.findall(r"#define (\w+)", text)
    assert len(macros) == len(set(macros))
    (tmp_path / "net.h").write_text(text)
    (tmp_path / "use.c").write_text('#include "net.h"\n#include "net.h"\nint x = NET_OK;\n')
    flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    subprocess.run([*compiler.split(), *flags, "use.c"], cwd=tmp_path, check=True)


def test_one_tensor_is_called_input() -> None:
    text = header(interface(["x:0"], ["probabilities"]), float_io=True)
    assert "int net_run(const uint8_t *input, uint8_t *output, void *workspace);" in text
    assert "int net_run_f32(const float *input, float *output, void *workspace);" in text
    for line in ("NET_INPUT_SCALE 0.5", "NET_INPUT_X_0_ZERO_POINT 3", "NET_OUTPUT_SHAPE {1,2,3}",
                 "NET_OUTPUT_PROBABILITIES_SIZE 6", "NET_WORKSPACE_ALIGN 64"):  # fmt: skip
        assert f"#define {line}\n" in text


def test_columns_list_their_scales(tmp_path: Path) -> None:
    x = Input.of(TensorType(DType.I16, (1, 2), Quant((0.5, 1e-4), (3, -70000), 1)), "x")
    y = QColumns(x, Quant(0.25))
    text = header(Interface.of(Graph("g", (x,), (y,), ("y",)), "net").with_workspace(64),
                  float_io=True)  # fmt: skip
    assert "NET_INPUT_SCALE " not in text
    assert "int net_run_f32(const float *input" in text
    (tmp_path / "use.c").write_text(
        text + "const double scales[] = NET_INPUT_SCALES;\n"
        "const int32_t points[] = NET_INPUT_X_ZERO_POINTS;\n"
        "char two[sizeof scales == 16 && sizeof points == 8 ? 1 : -1];\n"
    )
    subprocess.run(["gcc", "-Wall", "-Werror", "-fsyntax-only", "use.c"], cwd=tmp_path, check=True)


def test_what_is_missing_has_a_macro(tmp_path: Path) -> None:
    quants = Quant((0.5, 0.25), (3, 4), 1, -(2**15)), Quant((0.125,), (-70000,), 1, -(2**15))
    inputs = tuple(
        Input.of(TensorType(DType.I16, (1, len(q.scales)), q), n)
        for n, q in zip("xy", quants, strict=True)
    )
    graph = Graph("g", inputs, inputs, ("a", "b"))
    text = header(Interface.of(graph, "net").with_workspace(64), float_io=True)
    for line in ("X_MISSING -32768", "X_SCALES {0.5,0.25}", "Y_MISSING -32768", "Y_SCALE 0.125",
                 "Y_ZERO_POINT -70000"):  # fmt: skip
        assert f"#define NET_INPUT_{line}\n" in text
    (tmp_path / "use.c").write_text(text)
    subprocess.run(["gcc", "-Wall", "-Werror", "-fsyntax-only", "use.c"], cwd=tmp_path, check=True)


def test_several_tensors_keep_their_names() -> None:
    text = header(interface(["a b", "a_b"], ["y"]), float_io=False)
    assert "const uint8_t *a_b, const uint8_t *input_a_b, uint8_t *output, void *workspace" in text
    assert "NET_INPUT_A_B_SCALE" in text
    assert "NET_INPUT_SCALE" not in text
    assert "run_f32" not in text


@pytest.mark.parametrize(
    ("given", "better"), [("my-net.v2", "my_net_v2"), ("a b", "a_b"), ("2net", "m_2net"),
                          ("int", "int_net"), ("Ü", "model")],
)  # fmt: skip
def test_names_that_c_does_not_allow_are_refused_with_one_that_it_does(
    given: str, better: str
) -> None:
    with pytest.raises(CompileError, match=f"can't name a library.* --name {better} "):
        check_name(given)
    check_name(better)


@pytest.mark.parametrize("name", ["", "2net", "int", "class", "_", "-"])
def test_names_that_c_does_not_allow(name: str) -> None:
    with pytest.raises(CompileError, match="identifier"):
        check_name(name)


def test_files_for_build_systems_hold_no_absolute_path() -> None:
    made = Interface.of(small_net(), "net")
    for text in (cmake_config(made, ("so", "a")), pkg_config(made)):
        assert "net" in text
        assert str(Path.cwd()) not in text
    assert "net::shared" not in cmake_config(made, ("a",))
