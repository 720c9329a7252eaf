"""The program as systems and shells meet it."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from irc import interrupt
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


def heed_interrupts() -> None:
    """Shells let what they run in the background ignore interrupts, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["-m", "irc", "doctor"], 130, "Aborted.\n"),
        (["-mirc", "doctor"], 130, "Aborted.\n"),
        (["-X", "utf8", "-Bm", "irc", "doctor"], 130, "Aborted.\n"),
        (["irc", "doctor"], 130, "Aborted.\n"),
        (["-mfoo", "irc"], -signal.SIGINT, "Traceback"),
        (["-c", "import irc"], -signal.SIGINT, "Traceback"),
        (["app.py"], -signal.SIGINT, "Traceback"),
    ],
    ids=["-m", "-mirc", "-Bm", "command", "-mfoo", "-c", "program"],
)
def test_an_interrupted_import(
    arguments: list[str], status: int, said: str, tmp_path: Path
) -> None:
    """By a numpy that is interrupted when it is imported; only a command is quiet about it."""
    (tmp_path / "numpy.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    (tmp_path / "irc").write_text("from irc.cli import main; main()")
    (tmp_path / "app.py").write_text("import irc")
    (tmp_path / "foo").mkdir()
    (tmp_path / "foo" / "__init__.py").write_text("import irc")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(said)
    assert ("Traceback" in done.stderr) == (said == "Traceback")


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (["-m", "irc"], True), (["-mirc"], True), (["-Im", "irc"], True), (["-Imirc", "-m"], True),
        (["-W", "m", "-X", "dev", "-m", "irc"], True), (["-Wm", "-mirc"], True),
        (["--check-hash-based-pycs", "always", "-m", "irc"], True),
        (["-mfoo", "irc"], False), (["-m", "foo", "-m", "irc"], False), (["-m"], False),
        (["-c", "x", "-m", "irc"], False), (["-W"], False), (["-", "--"], False), ([], False),
    ],
)  # fmt: skip
def test_what_python_was_given_tells_whether_it_is_a_command(
    given: list[str], command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "orig_argv", ["python", *given])
    assert interrupt.is_command() == command


def test_a_program_of_another_name_is_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", [])
    for argv in ([], [""], ["-c"], ["-m"], ["irc.py"], ["irc/app.py"]):
        monkeypatch.setattr(sys, "argv", argv)
        assert not interrupt.is_command()


def test_another_thread_sets_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["irc"])
    monkeypatch.setattr(signal, "signal", pytest.fail)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(interrupt.prepare).result()
