"""Errors that a user can meet: one clear message each, naming the place and the cure."""

from __future__ import annotations


class IRCError(Exception):
    """Base of all errors that `irc` raises on purpose; the message is written for the user."""


class TypeCheckError(IRCError):
    """A node whose operands or attributes don't fit its op."""


class GraphError(IRCError):
    """A graph that is not well formed, or that lacks a property which a pass requires."""


class ParseError(IRCError):
    """Text that is not valid IR, or an option string that can't be read."""


class ModelError(IRCError):
    """A model file that can't be read, or that asks for something unsupported."""


class ShapeError(ModelError):
    """An input whose shape neither the model states nor its user: `dims` is what is known of it,
    None for each number that is not, and None where there is nothing."""

    def __init__(self, message: str, name: str, dims: tuple[int | None, ...] | None) -> None:
        super().__init__(message)
        self.name, self.dims = name, dims


class DataError(IRCError):
    """Calibration or input data with a wrong name, shape, dtype or content."""


class CompileError(IRCError):
    """A graph that can't be turned into the code that was asked for."""


class ToolError(IRCError):
    """A program outside of `irc` (compiler, linker, disassembler) that is missing or failed."""
