"""`irc doctor`: what is there, as a table."""

from __future__ import annotations

from irc import __version__, doctor
from irc.commands.console import out, table

WORDS = {True: "ok", False: "MISSING", None: "-"}
STYLES = {True: "", False: "bold red", None: "dim"}


def examine() -> bool:
    """Print every finding; whether nothing required is missing."""
    findings = doctor.examine()
    made = table((f"irc {__version__}", "left"), ("", "left"), ("", "left"))
    for f in findings:
        made.add_row(f.what, WORDS[f.fine], f.seen, style=STYLES[f.fine])
    out().print(made)
    return all(f.fine is not False for f in findings)
