"""From float to QDQ form: where values are quantized, with which scales, and how weights are."""

from irc.passes.quantize.complete_qdq import Islands, complete
from irc.passes.quantize.options import Options
from irc.passes.quantize.quantize import Quantize, quantize
from irc.passes.quantize.weight_only import with_real_weights

__all__ = ["Islands", "Options", "Quantize", "complete", "quantize", "with_real_weights"]
