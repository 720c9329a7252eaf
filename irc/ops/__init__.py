"""The ops, one file per family; importing this package registers all of them."""

from irc.ops import conv, core, quantization

__all__ = ["conv", "core", "quantization"]
