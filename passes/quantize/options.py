"""The options of quantization, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from irc.errors import IRCError

METHODS = ("minmax", "percentile", "mse")


@dataclass(frozen=True)
class Options:
    """How a graph is quantized; `Quantize` and `irc.quantize` take these by keyword.

    weights, activations: bits (8 is all there is). method: how an activation's range is chosen
    from its histogram. percentile: the share of elements kept inside the range, for that method.
    pair_safe: no like-signed neighbours of an output channel's weights exceed 128 in sum, so that
    `vpmaddubsw` is exact. per_channel: one weight scale per output channel rather than per
    tensor. bias_correction: fold the mean error of rounded weights into the bias.
    """

    weights: int = 8
    activations: int = 8
    method: str = "mse"
    percentile: float = 99.99
    pair_safe: bool = True
    per_channel: bool = True
    bias_correction: bool = True

    def __post_init__(self) -> None:
        for what, bits in (("weights", self.weights), ("activations", self.activations)):
            if bits != 8:
                raise IRCError(f"quantize: {what}={bits} is not supported, only 8 bits are")
        if self.method not in METHODS:
            raise IRCError(f"quantize: method {self.method!r} is none of {', '.join(METHODS)}")
        if not 50 < self.percentile <= 100:
            raise IRCError(f"quantize: percentile={self.percentile} must lie in (50, 100]")
