"""The options of quantization, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from irc.errors import IRCError

METHODS = ("minmax", "percentile", "mse")
ACTIVATIONS = ("auto", "8", "16")


@dataclass(frozen=True)
class Options:
    """How a graph is quantized; `Quantize` and `irc.quantize` take these by keyword.

    weights: bits (8 is all there is). activations: 8 or 16 bits, or "auto": 8, but 16 for what
    loses too much in 8 (see `irc.passes.quantize.precision`); what is multiplied with weights or
    other activations, inputs and outputs have 8 bits in any case. method: how an activation's range
    is chosen from its histogram. percentile: the share of elements kept inside the range, for that
    method. pair_safe: no like-signed neighbours of an output channel's weights exceed 128 in sum,
    so that `vpmaddubsw` is exact. per_channel: one weight scale per output channel rather than per
    tensor. compensate: round weights one after the other so that each makes up for the errors of
    those before it (see `irc.passes.quantize.rounding`). reconstruct: with the method "mse", try
    other scales where what reads a value makes much noise of its rounding (see
    `irc.passes.quantize.reconstruction`). bias_correction: fold the mean error of
    rounded weights into the bias. equalize: even out a norm's channels before weights multiply
    them, and the columns of an input, which then has a scale for each (see
    `irc.passes.quantize.column_units`; activations=8 switches these off as well). min_sqnr: the
    signal-to-noise ratio in dB that every output must have, against float, on the quarter of the
    samples that is then kept back from calibration; values get 16 bits until it is reached (see
    `irc.passes.quantize.precision_search`). 0 asks for nothing. None, the default, neither; but
    where calibration shows an output to be poor, values get 16 bits as far as that costs little
    (see `irc.passes.quantize.rescue`), unless activations=8 forbids it.
    """

    weights: int = 8
    activations: int | str = "auto"
    method: str = "mse"
    percentile: float = 99.99
    pair_safe: bool = True
    per_channel: bool = True
    compensate: bool = True
    reconstruct: bool = True
    bias_correction: bool = True
    equalize: bool = True
    min_sqnr: float | None = None

    def __post_init__(self) -> None:
        if self.weights != 8:
            raise IRCError(f"quantize: weights={self.weights} is not supported, only 8 bits are")
        if str(self.activations) not in ACTIVATIONS:
            raise IRCError(
                f"quantize: activations={self.activations} is none of {', '.join(ACTIVATIONS)}"
            )
        if self.method not in METHODS:
            raise IRCError(f"quantize: method {self.method!r} is none of {', '.join(METHODS)}")
        if self.min_sqnr and str(self.activations) == "8":
            raise IRCError("quantize: min_sqnr gives values 16 bits, which activations=8 forbids")
        if not 50 < self.percentile <= 100:
            raise IRCError(f"quantize: percentile={self.percentile} must lie in (50, 100]")

    @property
    def measures_layers(self) -> bool:
        """Whether calibration measures what layers multiply and make."""
        return self.compensate or self.bias_correction
