"""`irc audit`: a library's promises as a table."""

from __future__ import annotations

from pathlib import Path

from irc.audit import audit
from irc.commands.console import out, table

WORDS = {True: "pass", False: "FAIL", None: "not tried"}
STYLES = {True: "green", False: "bold red", None: "yellow"}


def audit_library(path: Path) -> bool:
    """Print every check; whether none failed."""
    checks = audit(path)
    made = table(("promise", "left"), ("", "left"), ("seen", "left"))
    for check in checks:
        made.add_row(check.promise, WORDS[check.holds], check.seen, style=STYLES[check.holds])
    out().print(made)
    return all(check.holds is not False for check in checks)
