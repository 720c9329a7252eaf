"""What people type: every command, and one clear error for every bad input."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

import irc
from irc import driver
from irc.cli import app, one_line

FILES = {"libnet.so", "libnet.a", "net.o", "net.h", "net.json", "netConfig.cmake", "net.pc",
         "report.html"}  # fmt: skip


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def small_model(dynamic: bool = False) -> onnx.ModelProto:
    """Convolution, ReLU, mean, classifier: x f32[1,3,8,8] to y f32[1,5]."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.3, (4, 3, 3, 3)),
        "b": rng.normal(0, 0.1, 4),
        "f": rng.normal(0, 0.5, (5, 4)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "f"], ["y"], transB=1),
    ]
    shape: list[str | int | None] = ["N", 3, "H", "W"] if dynamic else [1, 3, 8, 8]
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(1).normal(0, 1, (6, 3, 8, 8)).astype(np.float32))
    return path


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def refused(result: Result, *words: str) -> None:
    """Exit status 1 and one line that holds the words; no traceback."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


# ---------------------------------------------------------------- compile, run, audit


def test_compile_run_audit(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "build" / "deep"
    said = succeeded(cli("compile", model, "-o", out, "--calibration", data, "--name", "net"))
    assert {p.name for p in out.iterdir()} == FILES
    assert said.stdout.split() == [str(out / name) for name in sorted(FILES)]
    sample = tmp_path / "one.npz"
    np.savez(sample, x=np.load(data)["x"][:1])
    succeeded(cli("run", out / "libnet.so", sample, "-o", tmp_path / "y.npz"))
    expected = irc.open_library(out / "libnet.so")({"x": np.load(data)["x"][:1]})
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], expected["y"])
    assert "y: float32[1,5]" in succeeded(cli("run", out / "libnet.so", sample)).stdout
    audited = succeeded(cli("audit", out / "libnet.so", "--json", tmp_path / "audit.json")).stdout
    assert "FAIL" not in audited
    checks = json.loads((tmp_path / "audit.json").read_text())["checks"]
    assert all(c["holds"] and c["promise"] in audited and c["seen"] in audited for c in checks)


def test_the_model_that_is_compiled_stays(model: Path, data: Path, tmp_path: Path) -> None:
    source = tmp_path / "b" / "m.irc"
    succeeded(cli("show", model, "-o", source))
    kept = {p: p.read_bytes() for p in (source, source.with_suffix(".npz"))}
    arguments = ("-o", source.parent, "--name", "m", "--calibration", data, "--emit")
    for kind in ("o", "ll"):
        succeeded(cli("compile", source, *arguments, kind))
        assert {p: p.read_bytes() for p in kept} == kept
    compiled = irc.compile(irc.quantize(irc.load(source), data))
    for kind in ("o", "s"):
        compiled.save(source.parent, "m", emit=kind)
        assert {p: p.read_bytes() for p in kept} == kept
    assert not (source.parent / "m.o").exists()


def test_the_manifest_tells_of_model_and_passes(model: Path, data: Path, tmp_path: Path) -> None:
    succeeded(cli("compile", model, "-o", tmp_path / "b", "--calibration", data))
    manifest = json.loads((tmp_path / "b" / "small.json").read_text())
    assert manifest["model"]["name"] == "small.onnx"
    assert manifest["passes"][0] == "import"
    assert manifest["arena_least_bytes"] <= manifest["arena_bytes"] <= manifest["workspace_bytes"]
    assert {"quantize", "integerize", "plan"} <= set(manifest["passes"])


@pytest.mark.skipif(not driver.host_target().is_x86, reason="kernels are timed on x86-64")
def test_tuned(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRC_TUNE_CACHE", str(tmp_path / "times.json"))
    (tmp_path / "times.json").write_text("no times")
    for folder in ("tuned", "again", "usual"):
        options = [] if folder == "usual" else ["--tune"]
        said = cli("compile", model, "-o", tmp_path / folder, "--calibration", data, *options)
        assert ("times.json" in succeeded(said).stderr) == (folder == "tuned"), said.stderr
    tuned, again, usual = (
        json.loads((tmp_path / folder / "small.json").read_text())["kernels"]
        for folder in ("tuned", "again", "usual")
    )
    assert tuned == again
    assert any("measured" in k["choice"] and "µs" in k["choice"] for k in tuned)
    assert {k["choice"] for k in usual} == {"cost model"}
    assert "measured" in (tmp_path / "tuned" / "report.html").read_text()
    x = {"x": np.load(data)["x"][:1]}
    libraries = (irc.open_library(tmp_path / f / "libsmall.so") for f in ("tuned", "usual"))
    measured, estimated = (library(x)["y"] for library in libraries)
    np.testing.assert_array_equal(measured, estimated)


def test_the_same_command_gives_the_same_bytes(model: Path, data: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        succeeded(cli("compile", model, "-o", tmp_path / folder, "--calibration", data))
    for path in (tmp_path / "one").iterdir():
        if path.name != "report.html":  # which tells how long the passes took
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_emit_and_float_io(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    succeeded(cli("compile", model, "-o", out, "--calibration", data, "--name", "net",
                  "--emit", "ll,s,irc", "--no-float-io"))  # fmt: skip
    names = {p.name for p in out.iterdir()}
    assert {"net.ll", "net.s", "net.irc", "report.html"} <= names
    assert not {"libnet.so", "net.o"} & names
    assert "run_f32" not in (out / "net.h").read_text()


def test_several_targets_get_a_folder_each(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    succeeded(cli("compile", model, "-o", out, "--calibration", data, "--emit", "o",
                  "--target", "x86-64-v3", "--target", "aarch64+dotprod"))  # fmt: skip
    assert sorted(p.name for p in out.iterdir()) == ["aarch64+dotprod", "x86-64-v3"]
    assert (out / "aarch64+dotprod" / "small.o").read_bytes()[18] == 183  # EM_AARCH64


def test_an_accuracy_is_asked_for(model: Path, data: Path, tmp_path: Path) -> None:
    base: list[str | Path] = ["compile", model, "-o", tmp_path / "b", "--calibration", data]
    succeeded(cli(*base, "--min-sqnr", "5", "--emit", "o"))
    refused(cli(*base, "--min-sqnr", "150"), "150 are asked for")


def test_random_calibration_is_warned_about(model: Path, tmp_path: Path) -> None:
    said = succeeded(cli("compile", model, "-o", tmp_path / "b", "--calibration", "random:2"))
    assert "warning: calibrated on random noise" in said.stderr
    assert "random noise" in (tmp_path / "b" / "report.html").read_text()


def test_a_dynamic_shape_is_pinned(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    onnx.save(small_model(dynamic=True), path)
    refused(cli("show", path), "shape")
    assert "x: f32[1,3,8,8]" in succeeded(cli("show", path, "--shape", "x=1,3,8,8")).stdout


def test_an_open_shape_may_be_told_by_samples(tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    onnx.save(small_model(dynamic=True), path)
    made = cli("compile", path, "-o", tmp_path / "b", "--calibration", "random:2")
    refused(made, "or by samples: --calibration DATA.npz with")


def test_samples_tell_what_a_model_leaves_open(tmp_path: Path) -> None:
    path, samples = tmp_path / "open.onnx", tmp_path / "samples.npz"
    onnx.save(small_model(dynamic=True), path)
    np.savez(samples, x=np.ones((4, 3, 6, 10), np.float32))
    made = succeeded(cli("compile", path, "--calibration", samples, "-o", tmp_path / "o"))
    assert "has the shape 1,3,6,10 of" in made.stderr
    np.savez(samples, x=np.ones((4, 5, 6, 10), np.float32))
    refused(cli("compile", path, "--calibration", samples, "-o", tmp_path / "p"), "--shape")


def test_accuracy_stands_in_the_report(model: Path, data: Path, tmp_path: Path) -> None:
    graph = irc.load(model)
    x = np.load(data)["x"]
    labels = [int(irc.evaluate(graph, {"x": v[np.newaxis]})["y"].argmax()) for v in x]
    np.save(tmp_path / "labels.npy", np.array(labels))
    said = succeeded(cli("compile", model, "-o", tmp_path / "b", "--calibration", data,
                         "--data", data, "--labels", tmp_path / "labels.npy"))  # fmt: skip
    assert "top-1 accuracy on 6 samples: float 100.00%, integer 100.00%" in said.stderr
    assert "100.00 %" in (tmp_path / "b" / "report.html").read_text()


def test_pixels_as_input(model: Path, tmp_path: Path) -> None:
    """The library's u8 frames mean what normalising them by hand means to the model."""
    folder, rng = tmp_path / "images", np.random.default_rng(2)
    folder.mkdir()
    frames = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i}.png")
    said = "mean=0.5,0.4,0.3,std=0.2,0.3,0.4"
    succeeded(cli("compile", model, "-o", tmp_path / "b", "--calibration", folder,
                  "--input-u8", said, "--name", "net"))  # fmt: skip
    library, graph = irc.open_library(tmp_path / "b" / "libnet.so"), irc.load(model)
    assert str(library.input_types["x"]) == "u8[1,8,8,3] q(1.0, 0)"
    real = (frames / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    for frame, x in zip(frames, real.astype(np.float32), strict=True):
        expected = irc.evaluate(graph, {"x": x.transpose(2, 0, 1)[np.newaxis]})["y"]
        got = library({"x": frame[np.newaxis].astype(np.float32)})["y"]
        np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max() + 0.02)


# ---------------------------------------------------------------- show, opt, compare, doctor


def test_show(model: Path, data: Path) -> None:
    assert succeeded(cli("show", model)).stdout.strip() == str(irc.load(model)).strip()
    table = succeeded(cli("show", model, "--summary")).stdout
    assert "conv2d" in table
    assert "6,912" in table  # 8 * 8 * 4 * 27
    after = succeeded(cli("show", model, "--after", "integerize", "--calibration", data)).stdout
    assert "qconv2d(" in after
    refused(cli("show", model, "--after", "layou"), "layou", "did you mean layout?", "fold")
    refused(cli("show", model, "--after", "integerize"), "--calibration")


def test_opt(model: Path, tmp_path: Path) -> None:
    from irc.text import write

    path = tmp_path / "small.irc"
    write(irc.load(model), path)
    made = succeeded(cli("opt", path, "--passes", "fold,fuse,quantize{method=minmax}")).stdout
    assert "dequantize(" in made
    assert "clip(" in succeeded(cli("opt", path, "--passes", "fold,canonicalize,layout")).stdout
    refused(cli("opt", path, "--passes", "nonsense"), "nonsense", "fold")
    refused(cli("opt", path, "--passes", "fold{"), "braces")
    refused(cli("opt", model, "--passes", "fold"), ".irc")


def test_show_writes_what_opt_and_compile_read(model: Path, data: Path, tmp_path: Path) -> None:
    shown, folded = tmp_path / "text" / "shown.irc", tmp_path / "folded.irc"
    assert succeeded(cli("show", model, "-o", shown)).stdout == ""
    succeeded(cli("opt", shown, "--passes", "fold,canonicalize", "-o", folded))
    assert sorted(p.name for p in shown.parent.iterdir()) == ["shown.irc", "shown.npz"]
    read = irc.load(folded)
    x = {"x": np.load(data)["x"][:1]}
    assert np.allclose(irc.evaluate(read, x)["y"], irc.evaluate(irc.load(model), x)["y"])
    succeeded(cli("compile", folded, "-o", tmp_path / "b", "--calibration", data, "--emit", "o"))
    refused(cli("show", model, "-o", tmp_path / "text.txt"), ".irc")
    refused(cli("show", model, "-o", tmp_path / "text.irc", "--summary"), "--summary")
    assert not list(tmp_path.glob("text.*"))


def test_compare_lists_the_worst_first(model: Path, data: Path) -> None:
    lines = succeeded(cli("compare", model, "--calibration", data)).stdout.splitlines()
    ratios = [float(line.split("]")[1].split()[0]) for line in lines[1:]]
    assert len(ratios) >= 3
    assert ratios == sorted(ratios)
    assert min(ratios) > 20
    refused(cli("compare", model), "--calibration")


def test_doctor() -> None:
    said = succeeded(cli("doctor")).stdout
    for word in ("CPU", "linker", "numpy", "llvmlite"):
        assert word in said


def test_help_and_version() -> None:
    listed = succeeded(cli("--help")).stdout
    for command in ("compile", "run", "show", "opt", "compare", "audit", "doctor"):
        assert command in listed
        succeeded(cli(command, "--help"))
    assert irc.__version__ in succeeded(cli("--version")).stdout


def test_help_cuts_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = succeeded(cli("compile", "--help")).stdout
    assert "mean=0.485,0.456,0.406,std=0.229,0.224,0.225" in said
    assert "triple:cpu:features" in said
    assert max(map(len, said.splitlines())) <= 80


def test_lists_in_messages_become_one_line() -> None:
    assert one_line("g: 2 stay:\n  a: x\n  b: y\ncure: z") == "g: 2 stay: a: x; b: y; cure: z"


def test_usage_errors_have_status_2(model: Path) -> None:
    assert cli("nonsense").exit_code == 2
    assert cli("run").exit_code == 2
    assert cli("compile", model).exit_code == 2
    assert cli("compile", model, "-o", "x", "--threads", "many").exit_code == 2


def test_bench(model: Path, data: Path, tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    base: list[str | Path] = ["bench", model, "--calibration", data, "--rounds", "1"]
    shown = succeeded(cli(*base, "--threads", "2", "--layers", "--json", written)).stdout
    assert "latency, median" in shown
    assert "GMAC/s" in shown
    content = json.loads(written.read_text())
    result = content["result"]
    assert result["best"] <= result["median"] <= result["upper"]
    assert result["arena_bound"] <= result["arena_bytes"] <= result["workspace_bytes"]
    assert sum(layer["macs"] for layer in content["layers"]) > 3 * 3 * 3 * 4 * 64
    refused(cli("bench", model), "--calibration")
    refused(cli(*base, "--against", "litert"), "litert")
    refused(cli(*base, "--against", "openvino", "--target", "x86-64-v2"), "--isa")


def test_bench_of_a_library(model: Path, data: Path, tmp_path: Path) -> None:
    succeeded(cli("compile", model, "-o", tmp_path, "--name", "net", "--calibration", data,
                  "--threads", "2", "--emit", "so"))  # fmt: skip
    library, written = tmp_path / "libnet.so", tmp_path / "bench.json"
    shown = succeeded(cli("bench", library, "--rounds", "1", "--json", written)).stdout
    assert "latency, median" in shown
    assert "compile" not in shown
    result = json.loads(written.read_text())["result"]
    assert result["threads"] == 2
    assert result["library_bytes"] == library.stat().st_size
    assert 0 < result["best"] <= result["median"] <= result["start"]
    refused(cli("bench", library, "--layers", "--threads", "2"), "--layers, --threads")
    refused(cli("bench", tmp_path / "libother.so"), "there is no library")


def test_compile_warns_of_a_poor_result(tmp_path: Path) -> None:
    """The difference of two layers that are alike: weights of 16 bits don't know it."""
    rng = np.random.default_rng(0)
    w = rng.normal(0, 1, (8, 4)).astype(np.float32)
    v = w + rng.normal(0, 1e-4, w.shape).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]),
             helper.make_node("MatMul", ["x", "v"], ["b"]),
             helper.make_node("Sub", ["a", "b"], ["y"])]  # fmt: skip
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
             for name, size in (("x", 8), ("y", 4))]  # fmt: skip
    graph = helper.make_graph(
        nodes, "near", ports[:1], ports[1:],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(v, "v")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
              tmp_path / "near.onnx")  # fmt: skip
    np.savez(tmp_path / "x.npz", x=rng.normal(0, 1, (20, 8)).astype(np.float32))
    words = ("compile", tmp_path / "near.onnx", "--calibration", tmp_path / "x.npz", "--emit", "o")
    made = cli(*words, "-o", tmp_path / "out")
    assert made.exit_code == 0
    assert "warning: output y has " in made.stderr
    assert "--min-sqnr 20" in made.stderr
    assert "these layers lose most: " in made.stderr
    compared = cli("compare", *words[1:4])
    assert "output y has " in " ".join(compared.stdout.split())


# ---------------------------------------------------------------- bad input: nothing is written


def test_compile_refuses_what_it_cannot_do(model: Path, data: Path, tmp_path: Path) -> None:
    base: list[str | Path] = ["compile", model, "-o", tmp_path / "b", "--calibration", data]
    refused(cli(*base, "--threads", "1000"), "threads must be")
    refused(cli(*base, "--threads", "4", "--target", "cortex-m4"), "no POSIX threads")
    refused(cli(*base, "--optimize", "taste"), "taste")
    refused(cli(*base, "--tune", "--target", "cortex-m4"), "cortex-m4", "tune on a machine")
    refused(cli(*base, "--emit", "exe"), "exe")
    refused(cli(*base, "--emit", ""), "--emit")
    refused(cli(*base, "--target", "z80"), "z80")
    refused(cli(*base, "--name", "class"), "class")
    assert not (tmp_path / "b").exists()


def test_compile_refuses_bad_calibration(model: Path, tmp_path: Path) -> None:
    x = np.zeros((2, 3, 8, 8), np.float32)
    with_nan, text = x.copy(), tmp_path / "text.npz"
    with_nan[1, 0, 0, 0] = np.nan
    text.write_text("no archive")
    cases = {
        "nan": {"x": with_nan}, "shape": {"x": x[:, :2]}, "name": {"z": x},
        "none": {"x": x[:0]}, "words": {"x": np.full((2, 3, 8, 8), "a")},
    }  # fmt: skip
    base: list[str | Path] = ["compile", model, "-o", tmp_path / "b"]
    for name, arrays in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)  # type: ignore[arg-type]
        refused(cli(*base, "--calibration", tmp_path / f"{name}.npz"))
    refused(cli(*base), "--calibration", "np.savez")
    refused(cli(*base, "--calibration", tmp_path / "absent.npz"), "absent.npz")
    refused(cli(*base, "--calibration", text), "text.npz")
    refused(cli(*base, "--calibration", "random:none"), "random:16")
    refused(cli(*base, "--calibration", tmp_path), "--input-u8")
    np.savez(tmp_path / "pixels.npz", x=np.zeros((2, 8, 8, 3), np.uint8))
    refused(cli(*base, "--calibration", tmp_path / "pixels.npz"), "--input-u8")
    assert not (tmp_path / "b").exists()


def test_compile_refuses_bad_pixels(model: Path, data: Path, tmp_path: Path) -> None:
    base: list[str | Path] = ["compile", model, "-o", tmp_path / "b", "--calibration"]
    wrong = ("mean", "mean=a", "mean=0.5,std=0", "gain=1", "mean=0.1,0.2,std=1", "mean=123,std=58")
    for said in wrong:
        refused(cli(*base, data if "0.2" not in said else tmp_path, "--input-u8", said), "pixels")
    (tmp_path / "empty").mkdir()
    refused(cli(*base, tmp_path / "empty", "--input-u8", "mean=0,std=1"), "no image")
    (tmp_path / "empty" / "a.png").write_text("no picture")
    refused(cli(*base, tmp_path / "empty", "--input-u8", "mean=0,std=1"), "a.png")
    assert not (tmp_path / "b").exists()


def test_compile_refuses_bad_models(data: Path, tmp_path: Path) -> None:
    whole = small_model().SerializeToString()
    for name, content in (("cut.onnx", whole[: len(whole) // 2]), ("text.onnx", b"hello")):
        (tmp_path / name).write_bytes(content)
        refused(cli("compile", tmp_path / name, "-o", tmp_path / "b", "--calibration", data))
    refused(cli("compile", tmp_path / "absent.onnx", "-o", tmp_path / "b"), "absent.onnx")
    refused(cli("compile", tmp_path, "-o", tmp_path / "b"), "no model")
    assert not (tmp_path / "b").exists()


def test_bad_shapes_are_refused(model: Path) -> None:
    for shape in ("x", "x=", "x=1,b", "=1", "x=1,3,9,9", "nobody=1,3,8,8"):
        refused(cli("show", model, "--shape", shape), shape.split("=")[0])


def test_labels_must_fit(model: Path, data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.zeros(2, np.int64))
    np.save(tmp_path / "reals.npy", np.zeros(6))
    base: list[str | Path] = ["compile", model, "-o", tmp_path / "b", "--calibration", data]
    refused(cli(*base, "--labels", tmp_path / "few.npy"), "--data")
    refused(cli(*base, "--data", data), "--labels")
    refused(cli(*base, "--data", data, "--labels", tmp_path / "few.npy"), "2 labels")
    refused(cli(*base, "--data", data, "--labels", tmp_path / "reals.npy"), "integers")
    refused(cli(*base, "--data", data, "--labels", tmp_path / "absent.npy"), "absent.npy")
    assert not (tmp_path / "b").exists()


def test_an_unwritable_directory(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    base: list[str | Path] = ["compile", model, "--calibration", data, "-o"]
    refused(cli(*base, tmp_path / "file"), "can't write")
    refused(cli(*base, tmp_path / "file" / "deep"), "can't write")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        refused(cli(*base, tmp_path / "locked" / "b"), "can't write")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--name", "int"], "--name"),
        (["--emit", "so,exe"], "exe"),
        (["--target", "z80"], "z80"),
        (["--optimize", "fun"], "fun"),
        (["--threads", "9999"], "threads"),
        (["--tune", "--target", "cortex-m4"], "tuned"),
        (["--target", "wasm32", "--emit", "so"], "shared"),
        (["-o", "/dev/null"], "not a folder"),
    ],
)
def test_what_cant_be_made_is_told_before_the_calibration(
    model: Path, tmp_path: Path, options: list[str], word: str
) -> None:
    base: list[str | Path] = ["compile", model, "-o", tmp_path / "b", "--calibration", "absent.npz"]
    refused(cli(*base, *options), word)
    assert not (tmp_path / "b").exists()


def test_what_stood_there_stays_when_compiling_fails(
    model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    base: list[str | Path] = ["compile", model, "-o", out, "--calibration", data]
    base += ["--name", "net", "--emit", "o"]
    succeeded(cli(*base))
    before = {p: p.read_bytes() for p in out.iterdir()}
    refused(cli(*base, "--target", "x86-64-v3", "--target", "z80"), "z80")
    assert {p: p.read_bytes() for p in out.iterdir()} == before


def test_run_refuses_bad_libraries_and_inputs(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "libtext.so").write_text("no library")
    refused(cli("run", tmp_path / "libtext.so", data), "libtext.so")
    refused(cli("run", tmp_path / "absent.so", data), "absent.so")
    refused(cli("audit", tmp_path / "libtext.so"), "libtext.so", "libNAME.so")
    refused(cli("audit", tmp_path / "absent.so"), "absent.so")
    refused(cli("audit", tmp_path), "is a folder", "NAME.o")
    refused(cli("compile", tmp_path, "-o", tmp_path / "b"), "is a folder, no model")
    succeeded(cli("compile", model, "-o", tmp_path / "b", "--calibration", data, "--name", "net"))
    library = tmp_path / "b" / "libnet.so"
    for name, arrays in {
        "wrong_name": {"z": np.zeros((1, 3, 8, 8), np.float32)},
        "wrong_shape": {"x": np.zeros((1, 3, 9, 9), np.float32)},
        "wrong_dtype": {"x": np.zeros((1, 3, 8, 8), np.int64)},
    }.items():
        np.savez(tmp_path / name, **arrays)  # type: ignore[arg-type]
        refused(cli("run", library, tmp_path / f"{name}.npz", "-o", tmp_path / "y.npz"), "input")
    refused(cli("run", library, tmp_path / "absent.npz"), "absent.npz")
    refused(cli("run", library, tmp_path / "libtext.so"), "libtext.so")
    assert not (tmp_path / "y.npz").exists()


def test_prune_writes_a_smaller_model(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "pruned.onnx"
    result = cli("prune", model, "-o", out, "--ratio", "0.5", "--calibration", data)
    assert result.exit_code == 0, result.output
    assert "MACs" in result.output
    small, large = irc.load(out), irc.load(model)
    assert small.output_types == large.output_types
    assert sum(c.array.size for c in small.constants) < sum(c.array.size for c in large.constants)


def test_prune_without_data_warns(model: Path, tmp_path: Path) -> None:
    result = cli("prune", model, "-o", tmp_path / "p.onnx", "--ratio", "0.25")
    assert result.exit_code == 0, result.output
    assert "warning" in result.stderr


def test_prune_refuses_a_ratio_of_one(model: Path, tmp_path: Path) -> None:
    result = cli("prune", model, "-o", tmp_path / "p.onnx", "--ratio", "1")
    assert result.exit_code == 1
    assert "must lie in" in result.stderr
    assert not (tmp_path / "p.onnx").exists()


def test_value_makes_an_input_a_constant(model: Path, tmp_path: Path) -> None:
    zeros = ",".join(["0"] * (3 * 8 * 8))
    said = succeeded(cli("show", model, "--value", f"x={zeros}"))
    assert "input" not in said.stdout.split("{")[0]
    refused(cli("show", model, "--value", "x=one"), "--value x=one")
    refused(cli("show", model, "--value", "z=1"), "'z'")
