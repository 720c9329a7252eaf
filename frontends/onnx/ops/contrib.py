"""The definitions of onnxruntime's operators (domain com.microsoft), which onnx does not know.

After its ContribOperators.md: how many inputs and outputs, and the defaults of attributes;
an attribute that has none stands there with its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import helper
from onnx.defs import OpSchema

from irc.frontends.onnx.ops.table import SCHEMAS

DOMAIN = "com.microsoft"

INTS, FLOATS = OpSchema.AttrType.INTS, OpSchema.AttrType.FLOATS
STRINGS, REAL = OpSchema.AttrType.STRINGS, OpSchema.AttrType.FLOAT
REQUIRED, TEXT = OpSchema.AttrType.INT, OpSchema.AttrType.STRING

_WINDOW: Mapping[str, Any] = {
    "auto_pad": "NOTSET", "kernel_shape": INTS, "pads": INTS, "strides": INTS,
}  # fmt: skip
_CONV: Mapping[str, Any] = {**_WINDOW, "dilations": INTS, "group": 1}
_GEMM: Mapping[str, Any] = {"alpha": 1.0, "transA": 0, "transB": 0}

UNLIMITED = 1 << 20


def declare(
    name: str, inputs: tuple[int, int], outputs: int = 1, **attributes: Any
) -> OpSchema:
    """The definition of an operator with so many inputs (least, most) and outputs (most)."""
    least, most = inputs
    option = OpSchema.FormalParameterOption
    kinds = [option.Single] * least + [option.Optional] * (min(most, 64) - least)
    if most == UNLIMITED:
        kinds = [option.Single] * least + [option.Variadic]
    return OpSchema(
        name, DOMAIN, 1,
        inputs=[_parameter(f"x{i}", kind) for i, kind in enumerate(kinds)],
        outputs=[
            _parameter(f"y{i}", option.Optional if i else option.Single) for i in range(outputs)
        ],
        attributes=[_attribute(n, value) for n, value in attributes.items()],
    )  # fmt: skip


def _parameter(name: str, kind: OpSchema.FormalParameterOption) -> OpSchema.FormalParameter:
    return OpSchema.FormalParameter(name, "tensor(float)", param_option=kind, is_homogeneous=False)


def _attribute(name: str, value: Any) -> OpSchema.Attribute:
    if isinstance(value, OpSchema.AttrType):
        return OpSchema.Attribute(name, value, "", required=False)
    return OpSchema.Attribute(name, helper.make_attribute(name, value), "")


_DECLARED = (
    declare("QuantizeLinear", (2, 3), axis=REQUIRED, block_size=0, output_dtype=0),
    declare("DequantizeLinear", (2, 3), axis=REQUIRED, block_size=0, output_dtype=0),
    declare("QLinearAdd", (7, 8)),
    declare("QLinearMul", (7, 8)),
    declare("QLinearConcat", (4, UNLIMITED), axis=REQUIRED),
    declare("QLinearSigmoid", (4, 5)),
    declare("QLinearLeakyRelu", (4, 5), alpha=0.01),
    declare("QLinearSoftmax", (5, 5), axis=-1, opset=13),
    declare("QLinearReduceMean", (4, 5), axes=INTS, keepdims=1),
    declare("QLinearWhere", (9, 9)),
    declare(
        "QLinearAveragePool", (4, 5),
        **_WINDOW, ceil_mode=0, count_include_pad=0, channels_last=0,
    ),
    declare("QLinearGlobalAveragePool", (5, 5), channels_last=0),
    declare("QLinearConv", (8, 9), **_CONV, channels_last=0),
    declare("QGemm", (6, 9), **_GEMM),
    declare("FusedConv", (2, 4), **_CONV, activation=TEXT, activation_params=FLOATS),
    declare(
        "FusedGemm", (2, 3),
        **_GEMM, beta=1.0, activation=TEXT, activation_alpha=0.0, activation_beta=0.0,
        activation_gamma=0.0,
    ),
    declare("FusedMatMul", (2, 2), **_GEMM, transBatchA=0, transBatchB=0),
    declare("Gelu", (1, 1)),
    declare("FastGelu", (1, 2)),
    declare("BiasGelu", (2, 2)),
    declare("QuickGelu", (1, 1), alpha=1.702),
    declare("SkipLayerNormalization", (3, 5), 4, epsilon=1e-12),
    declare("SkipSimplifiedLayerNormalization", (3, 4), 4, epsilon=1e-12),
    declare(
        "Attention", (2, 7), 2,
        num_heads=REQUIRED, unidirectional=0, mask_filter_value=-10000.0, scale=0.0, do_rotary=0,
        rotary_embedding_dim=0, past_present_share_buffer=0,
    ),
    declare(
        "MultiHeadAttention", (1, 10), 4,
        num_heads=REQUIRED, mask_filter_value=-10000.0, scale=0.0, unidirectional=0,
    ),
    declare(
        "GroupQueryAttention", (7, 14), 4,
        num_heads=REQUIRED, kv_num_heads=REQUIRED, scale=0.0, softcap=0.0, local_window_size=-1,
        do_rotary=0, rotary_interleaved=0, smooth_softmax=0, qk_output=0, k_quant_type="NONE",
        v_quant_type="NONE", kv_cache_bit_width=0,
    ),
    declare(
        "RotaryEmbedding", (4, 4),
        interleaved=0, num_heads=0, rotary_embedding_dim=0, scale=1.0, is_packed_batching=0,
    ),
    declare("EmbedLayerNormalization", (7, 9), 3, epsilon=1e-12, mask_index_type=0),
    declare(
        "DynamicQuantizeLSTM", (12, 12), 3, activations=STRINGS, activation_alpha=FLOATS,
        activation_beta=FLOATS, clip=REAL, direction="forward", hidden_size=REQUIRED,
        input_forget=0,
    ),
    declare("DynamicQuantizeMatMul", (3, 5)),
    declare("MatMulIntegerToFloat", (4, 7)),
    declare(
        "MatMulNBits", (3, 6), K=REQUIRED, N=REQUIRED, bits=4, block_size=REQUIRED,
        accuracy_level=0,
    ),
    declare(
        "GatherBlockQuantized", (3, 4), bits=4, block_size=128, gather_axis=0, quantize_axis=1
    ),
)  # fmt: skip

# The optimizer writes this one into the standard domain.
SCHEMAS["SimplifiedLayerNormalization"] = declare(
    "SimplifiedLayerNormalization", (2, 2), 2, axis=-1, epsilon=1e-5, stash_type=1
)
# What tf2onnx leaves of TensorFlow's where it can't convert an operator.
SCHEMAS["Erfc"] = declare("Erfc", (1, 1))
SCHEMAS.update({f"{DOMAIN}.{schema.name}": schema for schema in _DECLARED})
