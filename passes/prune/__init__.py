"""Structured pruning: whole channels removed, and what remains made up for the loss."""

from irc.passes.prune.prune import LayerWidth, Options, prune, widths

__all__ = ["LayerWidth", "Options", "prune", "widths"]
