"""Passes: graph to graph, and the pipelines that order them.

A folder per step; each imports only those above it:

    float/        any imported graph in its normal form: folded, recognised, NHWC, scales in weights
    calibration/  what values are on data
    prune/        whole channels removed
    quantize/     which values are quantized, with which scales: QDQ form
    integer/      QDQ form to integers, and the proofs of them
    schedule/     integers to kernels in memory
"""

if __name__ != "irc.passes":
    raise ImportError(
        f"this package is 'irc.passes', imported as {__name__!r}: "
        "a second copy would mean a second op registry; import it by its full name"
    )

from irc.passes.float.batch_norm import FuseBatchNorm
from irc.passes.float.canonicalize import Canonicalize
from irc.passes.float.fold import Fold
from irc.passes.float.layout import Layout
from irc.passes.float.logits import CentreLogits
from irc.passes.float.table_inputs import Tables
from irc.passes.float.tree_leaves import Leaves
from irc.passes.float.tree_thresholds import Forests
from irc.passes.integer.integerize import Integerize
from irc.passes.integer.lift_weights import LiftWeights
from irc.passes.integer.prove import Prove
from irc.passes.integer.transposed import SplitTransposed
from irc.passes.integer.unsigned import Unsigned
from irc.passes.quantize import Quantize
from irc.passes.schedule.fuse_kernels import FuseKernels
from irc.passes.schedule.plan import PlanMemory
from irc.pipeline import Pass

PIPELINES: dict[str, list[Pass]] = {
    # Any imported graph, float or QDQ, in its normal form; the interface stays.
    "float": [
        Fold(),  # what can be computed now is; duplicates and no-ops go
        Tables(),  # columns as irc's own files have them, while they stand as written
        Forests(),  # what stands before trees, while it is known what is filled in
        Canonicalize(),  # one spelling for each meaning, what exporters took apart put together
        Leaves(),  # what is computed of a tree alone
        Layout(),  # NHWC inside: the frontends' transposes cancel, and neighbours meet
        FuseBatchNorm(),  # scales and offsets into the weights beside them
        Canonicalize(),  # what the transposes had hidden
        CentreLogits(),  # what all classes have in common
        Fold(),  # what the others left behind
    ],
    # QDQ to integers: integerize does it, alone; then what it promises.
    "integer": [
        Unsigned(),  # 8-bit activations as the kernels take them, whatever the model's author chose
        Integerize(),
        SplitTransposed(),  # transposed convolutions by plain ones
        Fold(),  # equal tables and weights once
        Prove(),  # no accumulator overflows, or the layer is refused by name
        LiftWeights(),  # nine bits of u8 weights as eight, which kernels multiply
    ],
    # Integers to kernels in memory.
    "schedule": [
        FuseKernels(),  # elementwise tails into the kernels that they follow
        PlanMemory(),  # every value its place
    ],
}

__all__ = ["PIPELINES", "Quantize"]
