"""The ops, one file per family; importing this package registers all of them."""

from irc.ops import conv, core, pool, quantization, resize, shape

__all__ = ["conv", "core", "pool", "quantization", "resize", "shape"]
