"""What differs between versions of torch: how a module is exported, and how a program keeps the
operators that we take whole. 2.5 is the first that can."""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

from irc.errors import ToolError

TAKEN_APART = (
    "aten.scaled_dot_product_attention",  # its result lies otherwise in memory than a fake one's
    "aten.std_mean", "aten.istft", "aten.where",  # torch has no fake one for them as they are
    "aten.fake_quantize_per_tensor_affine", "aten.fake_quantize_per_channel_affine",
)  # fmt: skip
"""Operators that torch 2.5 must take apart."""


def check_version(torch: Any) -> None:
    """Raise `ToolError` for a torch that is too old."""
    if _version(torch) < (2, 5):
        raise ToolError(f"PyTorch {torch.__version__} is too old: pip install 'torch>=2.5'")


def export(torch: Any, module: Any, args: Any, kwargs: Any, dynamic: Any) -> Any:
    """`torch.export` as all versions since 2.6 do it: operators as the module calls them."""
    old = not hasattr(torch.export, "default_decompositions")
    call = torch.export.export_for_training if old else torch.export.export
    options = {"dynamic_shapes": dynamic, "strict": False}
    with written_in_place(torch, module), attributes_not_examined(), without_gradients(torch):
        try:
            return call(module, args, kwargs, **options)
        except Exception as error:
            if _transforms(error):
                return _below_autograd(torch, module, args, kwargs, options)
            if not _of_earlier(error):
                raise
        torch.compiler.reset()
        return call(module, args, kwargs, **options)


TRANSFORMS = ("torch._functorch.", "torch.autograd")
"""Where torch maps functions over axes (`vmap`) and takes gradients."""
LOST = "fake tensor in the exported program", "functorch tensor"
"""What torch says where it lost sight of a tensor there."""


def _transforms(error: BaseException) -> bool:
    """Whether torch could not follow a gradient, or what is mapped over an axis."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    names = (str(frame.f_globals.get("__name__")) for frame in frames)
    return any(w in str(error) for w in LOST) or any(n.startswith(TRANSFORMS) for n in names)


def _below_autograd(torch: Any, module: Any, args: Any, kwargs: Any, options: Any) -> Any:
    """The program in the operators that come when gradients have been taken and axes mapped."""
    trace, attention = map(importlib.import_module, ("torch.export._trace", "torch.nn.attention"))
    plain = attention.sdpa_kernel(attention.SDPBackend.MATH)
    with gradients_of_inputs_alone(torch, module), plain:
        return trace._export(module, args, kwargs, pre_dispatch=False, **options)


@contextlib.contextmanager
def gradients_of_inputs_alone(torch: Any, module: Any) -> Iterator[None]:
    """Within, calls of a module may take gradients, of what is no parameter."""
    own, trained = vars(module).get("forward"), [p for p in module.parameters() if p.requires_grad]
    module.requires_grad_(False)
    module.forward = torch.enable_grad()(module.forward)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
        for parameter in trained:
            parameter.requires_grad_(True)


def _version(torch: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in str(torch.__version__).split("+")[0].split(".")[:2])


def _of_earlier(error: BaseException) -> bool:
    """Whether torch failed over what it had compiled before, of `flex_attention`: it can't always
    say why that is not for these arguments."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "torch._dynamo.guards" for frame in frames)


@contextlib.contextmanager
def without_gradients(torch: Any) -> Iterator[None]:
    """Within, nothing has a gradient: torch refuses buffers that are changed by what has one before
    2.8, and `flex_attention` of it on CPUs. Attention is computed by plain operators all the same.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def written_in_place(torch: Any, module: Any) -> Iterator[None]:
    """Within, a call that replaces a buffer (`self.cache = …`) ends by writing the new one into the
    old one, which all versions of torch report; some lose what is only replaced."""
    before: list[list[tuple[Any, str, Any]]] = []

    def enter(*_: Any) -> None:
        held = [(m, n, b) for m in module.modules() for n, b in m._buffers.items()]
        before.append([(m, n, b) for m, n, b in held if b is not None])

    def leave(*_: Any) -> None:
        for child, name, old in before.pop():
            new = child._buffers.get(name)
            if new is not old and new is not None and new.shape == old.shape:
                with torch.no_grad():
                    old.copy_(new)
                child._buffers[name] = old

    handles = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def attributes_not_examined() -> Iterator[None]:
    """Within, torch takes modules that set attributes to tensors, as its own recurrent layers do:
    versions before 2.8 refuse them, later ones warn. `irc.frontends.torch.state` looks whether it
    matters."""
    trace: Any = importlib.import_module("torch.export._trace")
    before = getattr(trace, "_detect_attribute_assignment", None)
    if before is None:
        yield
        return
    trace._detect_attribute_assignment = lambda *_: nullcontext()
    try:
        yield
    finally:
        trace._detect_attribute_assignment = before


@contextlib.contextmanager
def masks_not_examined() -> Iterator[None]:
    """`nn.Transformer` looks whether its mask is causal, which data decide, to take a kernel that
    gives the same; torch can't export that. Here the caller's own word is taken."""
    layers: Any = importlib.import_module("torch.nn.modules.transformer")
    before = getattr(layers, "_detect_is_causal_mask", None)
    if before is None:
        yield
        return
    layers._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        layers._detect_is_causal_mask = before


def lowered(torch: Any, program: Any, kept: Collection[str]) -> Any:
    """The program by torch's own decompositions, less those of operators that are `kept`."""
    if hasattr(torch.export, "default_decompositions"):
        table = torch.export.default_decompositions()
        with without_gradients(torch):
            return program.run_decompositions(
                {o: f for o, f in table.items() if _name(o) not in kept}
            )
    table = importlib.import_module("torch._decomp").core_aten_decompositions()
    table = {o: f for o, f in table.items() if _name(o) not in kept}
    whole = tuple(_composites(torch, tuple(sorted(kept))))
    with without_gradients(torch):
        return program.run_decompositions(table, _preserve_ops=whole)


def _name(op: Any) -> str:
    schema = getattr(op, "_schema", None)
    return "" if schema is None else str(schema.name).replace("::", ".")


@cache
def _composites(torch: Any, names: tuple[str, ...]) -> list[Any]:
    """Operators that torch 2.5 takes apart unless it is told not to: those that are composed of
    others and whose results share no memory with their operands."""
    tensor = importlib.import_module("torch._subclasses.functional_tensor").FunctionalTensor
    never = {*tensor.maybe_aliasing_or_mutating_ops, *tensor.metadata_fns}
    return [
        op
        for op in _overloads(torch, names)
        if op not in never
        and _name(op) not in TAKEN_APART
        and not op._schema.is_mutable
        and not any(a.alias_info for a in (*op._schema.arguments, *op._schema.returns))
        and torch._C._dispatch_has_kernel(op.name())
        and torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")
    ]


def _overloads(torch: Any, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        space, _, operator = name.partition(".")
        packet = getattr(getattr(torch.ops, space), operator, None) if space == "aten" else None
        for overload in packet.overloads() if packet is not None else ():
            yield getattr(packet, overload)
