"""From float to QDQ form: where values are quantized, with which scales, and how weights are.

The steps of `quantize`; `options` are what a caller may choose.

    the graph, made ready
        column_units          columns of an input, brought to like size
        quotients             divisions as quotients, or as products with a reciprocal
        equalize              channels of a norm, evened out before weights multiply them
    what is quantized, before any range is known
        sites                 the values, and what is a part of its neighbour
        groups                which of them share one scale
        masks                 what a softmax sees of its operand
    what has 16 bits
        precision             by the ops around it: residual streams, logits, sums
        signals               sound and the like, and what the first layers make of it
        coordinates           places in images, and what is compared
        logarithms            what they read
        states                states of recurrent cells, and what their gates are made of
        feedback_loops        states that are computed of themselves
    scales
        scales                of 8 or 16 bits, from what calibration measured
        ranges                of 8 bits: by what an op makes, or as measured
        reconstruction        of 8 bits: by what layers make of values
        tree_columns          of columns that trees alone read: by their thresholds
        assignment            the type of every value, by all of these
    the QDQ graph
        weights               floats as i8, a scale per output channel
        rounding              one weight after the other, each making up for those before it
        bias_correction       means that quantization moved, brought back
        writer                quantize/dequantize pairs, and weights behind a dequantize
    how good it is
        sensitivity           what the rounding of one value costs the outputs
        precision_search      as many 16-bit values as the accuracy takes that is asked for
        rescue                a few unasked, where outputs are poor
        calibration_warnings  doubts about the samples

Of graphs that come quantized, `weight_only` takes those that only store integers, `complete_qdq`
quantizes the rest of others, and `intervals` gives types to what needs no calibration.
"""

from irc.passes.quantize.complete_qdq import Islands, complete
from irc.passes.quantize.options import Options
from irc.passes.quantize.quantize import Quantize, quantize
from irc.passes.quantize.weight_only import with_real_weights

__all__ = ["Islands", "Options", "Quantize", "complete", "quantize", "with_real_weights"]
