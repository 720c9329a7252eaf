"""Bars appear late, on terminals only."""

import sys

import pytest

from irc import progress


def test_no_terminal_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("work", 3) as advance:
        advance(3)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_long_work_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.bar("quick", 3) as advance:
        advance(3)
    assert "quick" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.bar("long work", 3) as advance:
        advance(2)
    assert "long work" in capsys.readouterr().err
