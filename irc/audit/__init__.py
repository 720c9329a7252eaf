"""What a compiled library promises, checked on its machine code."""

from irc.audit.checks import Check, audit, runtime_symbols

__all__ = ["Check", "audit", "runtime_symbols"]
