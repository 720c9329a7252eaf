"""Without PyTorch everything else works, and what needs it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_importing_irc_does_not_import_torch(tmp_path: Path) -> None:
    """A torch that fails stands in the way of the real one."""
    (tmp_path / "torch.py").write_text("raise ImportError('imported')")
    code = (
        "import sys, irc, irc.cli, irc.frontends.onnx, irc.passes.calibration.data\n"
        "assert 'torch' not in sys.modules\n"
        "try: irc.from_torch(None, None)\n"
        "except irc.IRCError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "pip install 'irc-nn[torch]'" in done.stdout


def test_an_old_torch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("__version__ = '2.4.1'")
    code = (
        "import irc\n"
        "try: irc.from_torch(None, None)\n"
        "except irc.IRCError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "PyTorch 2.4.1 is too old: pip install 'torch>=2.5'\n"
