"""The program as systems and shells meet it."""

import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from irc.cli import app, unwind
from irc.outputs import whole


def write_and_be_ended(directory: Path) -> None:
    with whole(directory) as folder:
        (folder / "half").write_text("")
        signal.raise_signal(signal.SIGTERM)


def test_a_request_to_end_leaves_nothing_half_written(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, unwind)
    try:
        with pytest.raises(SystemExit, match="143"):
            write_and_be_ended(tmp_path / "out")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == []


def test_shells_complete_commands() -> None:
    asked = {"_IRC_COMPLETE": "complete_bash", "COMP_WORDS": "irc co", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, [], prog_name="irc", env=asked)
    assert result.stdout.split() == ["compile", "compare"]
