"""ONNX models become graphs."""

from irc.frontends.onnx.importer import load

__all__ = ["load"]
