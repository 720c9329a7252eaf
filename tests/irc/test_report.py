"""The report: one file, no references, every fact in it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import irc
from irc.accuracy import Accuracy
from irc.compare import LayerError
from irc.pipeline import Step
from irc.report import Report, page
from irc.report.model import Row, Size
from irc.summary import Layer
from irc.types import DType, TensorType

VOID = {"meta", "br", "link", "img"}
TYPE = TensorType(DType.U8, (1, 4, 4, 8))


def report(names: list[str], sqnr: float = 30.0) -> Report:
    errors = [LayerError(n, "qconv2d", TYPE, sqnr, 0.1, 2.0) for n in names]
    rows = [
        Row(Layer(n, "qconv2d + qadd", TYPE, 2_000_000, 10, 3000), "gemm_8x8", "<why> & so",
            "cost model", "fits 32 bits", e.sqnr)
        for n, e in zip(names, errors, strict=True)
    ]  # fmt: skip
    return Report(
        name="net", target="x86-64-v3", version="0.1.0", model="m.onnx", digest="ab" * 32,
        steps=[Step("import", 0.5, 0, 12), Step("fuse", 0.001, 12, 9)], rows=rows,
        functions=1, sizes=[Size("model file", 5_000_000), Size("weights", 3000)], errors=errors,
        accuracy=Accuracy(1000, 0.917, 0.915, 0.99), warnings=["mind <this>"],
    )  # fmt: skip


class Balanced(HTMLParser):
    """Fails where a tag is not closed, or refers to something outside of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe", "object", "link")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#"), (tag, name, value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> str:
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", text)
    assert "@import" not in text
    assert '<meta name="viewport"' in text
    return text


def test_everything_known_is_told() -> None:
    text = checked(page(report(["stem/conv", "block.1/conv"])))
    for fact in ("net", "x86-64-v3", "m.onnx", "91.70 %", "91.50 %", "99.00 %", "1,000 images",
                 "fuse", "12 → 9 nodes", "500.0 ms", "gemm_8x8", "fits 32 bits",
                 "2 M", "30.0 dB", "4.8 MiB", "2.9 KiB"):  # fmt: skip
        assert fact in text, fact


def test_names_are_escaped() -> None:
    text = checked(page(report(["<b>bold</b>"])))
    assert "&lt;why&gt; &amp; so" in text
    assert "mind &lt;this&gt;" in text
    assert "<b>bold" not in text


@pytest.mark.parametrize("sqnr", [np.inf, -np.inf, 5.0, 15.0])
def test_extreme_ratios(sqnr: float) -> None:
    text = checked(page(report(["a"], sqnr)))
    shown = {np.inf: "exact", -np.inf: "no signal"}.get(sqnr, f"{sqnr:.1f} dB")
    assert shown in text


def test_without_measurements_there_is_no_empty_plot() -> None:
    bare = Report("n", "host", "0", "", "", [], [], 0, [Size("weights", 0)], [], None, [])
    text = checked(page(bare))
    assert "SQNR" not in text
    assert "top-1" not in text


def test_many_layers_are_drawn_without_names() -> None:
    text = checked(page(report([f"layer{i}" for i in range(200)])))
    assert text.count("layer7") == len([i for i in range(200) if str(i).startswith("7")])


def test_the_same_report_is_the_same_page() -> None:
    assert page(report(["a", "b"])) == page(report(["a", "b"]))


def test_saving_a_model_writes_its_report(tmp_path: Path) -> None:
    graph = irc.parse("graph @g(%x: u8[1,8] q(0.1, 3)) {\n  return %x\n}")
    paths = irc.compile(graph).save(tmp_path, name="net")
    assert tmp_path / "report.html" in paths
    checked((tmp_path / "report.html").read_text())


def test_each_model_of_a_folder_has_its_report(tmp_path: Path) -> None:
    graph = irc.parse("graph @g(%x: u8[1,8] q(0.1, 3)) {\n  return %x\n}")
    for name in ("one", "two", "one", "two"):
        irc.compile(graph).save(tmp_path, name=name, emit=())
    assert "<title>one · irc</title>" in (tmp_path / "report.html").read_text()
    assert "<title>two · irc</title>" in (tmp_path / "two.report.html").read_text()
    assert len(list(tmp_path.glob("*.html"))) == 2
