"""Modules that are being trained with quantization, as they stand: each fake quantization becomes
an operator with the scale that its observer has found so far."""

from __future__ import annotations

import copy
import importlib
from functools import partial
from typing import Any

from irc.errors import ModelError

CURE = "which can't be exported: give the module as it was before convert(), or use PT2E"
REFUSED = (
    (
        ("torch.ao.nn.quantized.dynamic.", "torch.ao.nn.intrinsic.quantized.dynamic."),
        "chooses its scales at run time (dynamic quantization), which can't be exported: give the"
        " float module, and its data to irc.quantize as calibration",
    ),
    (
        ("torch.ao.nn.quantized.modules.", "torch.ao.nn.intrinsic.quantized."),
        f"holds packed weights, {CURE}",
    ),
    (("torch.ao.nn.quantized.modules",), f"makes or takes torch's quantized tensors, {CURE}"),
)
"""Where the layers of torch's eager quantization are defined, and what is wrong with them; the
first that a module holds is told."""
FLOAT = ("FloatFunctional", "FXFloatFunctional")
"""Those that compute in float."""


def frozen(module: Any) -> Any:
    """A copy of the module with its fake quantizations at their present scales; the module itself
    where it has none.

    Raises `ModelError` for modules of torch's eager quantization after `convert`, whose packed
    weights can't be exported, for dynamic ones, and for those that only observe.
    """
    _check_packed(module)
    if not any(map(_fakes, module.modules())):
        _check_observers(module)
        return module
    made = copy.deepcopy(module)
    for child in filter(_fakes, made.modules()):
        child.forward = _function(child)
    return made


def _check_packed(module: Any) -> None:
    for places, wrong in REFUSED:
        for name, child in module.named_modules():
            kinds = (b.__module__ for b in type(child).__mro__ if b.__name__ not in FLOAT)
            if any(kind.startswith(places) for kind in kinds):
                raise ModelError(f"{name or 'the module'} ({type(child).__name__}) {wrong}")


def _check_observers(module: Any) -> None:
    for name, child in module.named_modules():
        if "ObserverBase" in {base.__name__ for base in type(child).__mro__}:
            raise ModelError(
                f"{name or 'the module'} ({type(child).__name__}) only observes, after prepare():"
                " give the module as it was before, and its data to irc.quantize as calibration"
            )


def _fakes(module: Any) -> bool:
    """Whether a module is one of torch's fake quantizations."""
    names = {base.__name__ for base in type(module).__mro__}
    return "FakeQuantizeBase" in names


def _function(fake: Any) -> Any:
    """What it does to a tensor now."""
    torch = importlib.import_module("torch")
    if not bool(fake.fake_quant_enabled[0]):
        return lambda x: x
    bounds = fake.activation_post_process.quant_min, fake.activation_post_process.quant_max
    scale, zero = fake.scale.detach(), fake.zero_point.detach()
    if scale.numel() > 1 or getattr(fake, "is_per_channel", False):
        call = torch.fake_quantize_per_channel_affine
        return partial(_called, call, scale, zero.to(torch.int32), fake.ch_axis, *bounds)
    return partial(_called, torch.fake_quantize_per_tensor_affine, float(scale), int(zero), *bounds)


def _called(function: Any, *arguments: Any) -> Any:
    """`function(x, …)`: x comes last, as partial applies the others first."""
    *given, x = arguments
    return function(x, *given)
