"""`irc audit`: a library's promises as a table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from irc.audit import audit
from irc.commands.console import out, table, write_json

WORDS = {True: "pass", False: "FAIL", None: "not tried"}
STYLES = {True: "green", False: "bold red", None: "yellow"}


def audit_library(path: Path, json_file: Path | None = None) -> bool:
    """Print every check, or write them too; whether none failed."""
    checks = audit(path)
    if json_file is not None:
        content = {"library": str(path), "checks": [asdict(check) for check in checks]}
        write_json(json_file, content)
    made = table(("promise", "left"), ("", "left"), ("seen", "left"))
    for check in checks:
        made.add_row(check.promise, WORDS[check.holds], check.seen, style=STYLES[check.holds])
    out().print(made)
    return all(check.holds is not False for check in checks)
