import json
from dataclasses import asdict

import pytest

from bench import torch_zoo
from bench.torch_zoo import Row, markdown, row_of


def test_a_table_says_what_was_reached() -> None:
    rows = [Row("a", 12, 3e-7, 4, 31.25), Row("b", 9, failed="quantize: it\nfailed | here")]
    text = markdown(rows).splitlines()
    assert text[2] == "| a | 12 | 3e-07 | 4 | 31.2 |  |"
    assert text[3] == "| b | 9 |  |  |  | quantize: it failed / here |"
    assert [Row(**json.loads(json.dumps(asdict(row)))) for row in rows] == rows


def test_failures_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> torch_zoo.Subject:
        raise RuntimeError(f"no {name}")

    monkeypatch.setitem(torch_zoo.SOURCES, "broken", (fail, ("x",)))
    assert row_of("broken", "x") == Row("x", failed="load: RuntimeError: no x")
