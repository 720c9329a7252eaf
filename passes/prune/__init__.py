"""Structured pruning: whole channels removed, and what remains made up for the loss."""

from irc.passes.prune.prune import Options, prune

__all__ = ["Options", "prune"]
