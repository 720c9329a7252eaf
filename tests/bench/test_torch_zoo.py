import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench import torch_table, torch_zoo
from bench.torch_table import Row, Table, code_state, markdown, summary, write_document
from bench.torch_zoo import row_of


def test_a_table_says_what_was_reached() -> None:
    failed = Row("b", 9, failed="quantize: it\nfailed | here")
    rows = [Row("a", 12, 3e-7, 4, True, 31.25, 30.0), failed]
    text = [line.split("|") for line in markdown(rows).splitlines()]
    assert [cell.strip() for cell in text[2]][1:-1] == [
        "a", "12", "3e-07", "4", "same", "31.2", "30.0", ""
    ]  # fmt: skip
    assert [cell.strip() for cell in text[3]][2:-1] == [
        "9", "–", "–", "–", "–", "", "quantize: it failed / here"
    ]  # fmt: skip
    assert [Row(**json.loads(json.dumps(asdict(row)))) for row in rows] == rows
    assert summary(rows) == (
        "1 of 2 compiled to integers; the largest difference of `evaluate` from torch is 3e-07;"
        " the library's bits are those of the reference on 1 of 1;"
        " irc has the higher SQNR on 1 of 1, by +1.2 dB in the median; one state of the code."
    )


def test_failures_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> torch_zoo.Subject:
        raise RuntimeError(f"no {name}")

    monkeypatch.setitem(torch_zoo.SOURCES, "broken", (fail, ("x",)))
    expected = Row("x", failed="load: RuntimeError: no x", state=code_state())
    assert row_of("broken", "x") == expected


def test_rows_of_this_state_of_the_code_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "zoo.json"
    done = Row("a", 12, 3e-7, 4, True, 31.0, state=code_state())
    Table(path).add("timm", done)
    Table(path).add("timm", Row("b", failed="import: no", state=code_state()))
    Table(path).add("torchvision", replace(done, name="c"))
    table = Table(path)
    assert list(table.of("timm")) == ["a", "b"]
    assert table.of("torchvision")["c"] == replace(done, name="c")
    assert table.measured("timm", "a", peer=False)
    assert table.measured("timm", "b", peer=True)
    assert not table.measured("timm", "a", peer=True)
    assert not table.measured("timm", "z", peer=False)
    monkeypatch.setattr(torch_table, "code_state", lambda: "another")
    assert not table.measured("timm", "a", peer=False)
    assert table.measured("timm", "a", peer=False, any_state=True)


def test_the_document_keeps_what_stands_outside_of_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "torch.md"
    old = "<!-- measured: timm -->\nold\n<!-- end of timm -->"
    path.write_text(f"# T\n\nbefore\n\n{old}\n\nafter\n")
    write_document(path, {"timm": [Row("a", 1)], "torchvision": []}, {"timm": "Of timm"})
    text = path.read_text()
    assert text.startswith("# T\n\nbefore\n\n<!-- measured: timm -->\n\n### Of timm\n")
    assert text.endswith("<!-- end of timm -->\n\nafter\n")
    assert "old" not in text
    assert "| a " in text
