"""PyTorch's side of the import: modules and files become exported programs of few operators.

torch is imported here, when it is needed, and nowhere else.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irc.errors import ModelError, ToolError
from irc.frontends.torch import versions as torch_versions
from irc.frontends.torch.carried import join_aliases
from irc.frontends.torch.export_check import distance, warn_where
from irc.frontends.torch.export_errors import cure, depends_on_data, reason
from irc.frontends.torch.freeze import frozen
from irc.frontends.torch.integer_buffers import known
from irc.frontends.torch.ops import HANDLERS, OF_COMPLEX
from irc.frontends.torch.state import remembers, watched

UNSCRIPTED = "give the nn.Module it came from"


def torch() -> Any:
    """The package; raises `ToolError` where it is not installed."""
    try:
        found = importlib.import_module("torch")
    except ImportError as error:
        raise ToolError(
            f"PyTorch can't be imported ({error}): pip install 'irc-nn[torch]'"
        ) from None
    torch_versions.check_version(found)
    return found


def operator_name(target: Any) -> str:
    """An operator's name without its overload, `aten.conv2d`; of a Python function its own."""
    schema = getattr(target, "_schema", None)
    if schema is not None:
        return str(schema.name).replace("::", ".")
    module = getattr(target, "__module__", None) or ""
    name = f"{module}.{getattr(target, '__name__', target)}"
    return name.removeprefix("_operator.").removeprefix("torch.ops.higher_order.")


def exported(module: Any, example_inputs: Any, dynamic: Any) -> Any:
    """The `ExportedProgram` of a module, or the program itself where it is one.

    Raises `ModelError` for what can't be exported, with torch's reason.
    """
    export = torch().export
    if isinstance(module, export.ExportedProgram):
        return module
    if isinstance(module, torch().jit.ScriptModule):
        raise ModelError(f"a TorchScript module can't be exported: {UNSCRIPTED}")
    if not isinstance(module, torch().nn.Module):
        weights = ": load the weights into their module" if isinstance(module, Mapping) else ""
        raise ModelError(
            f"an nn.Module or ExportedProgram is wanted, not {type(module).__name__}{weights}"
        )
    for name, child in module.named_modules():
        if isinstance(child, torch().jit.ScriptModule):
            raise ModelError(f"{name!r} is TorchScript, which can't be exported: {UNSCRIPTED}")
    args, kwargs = call_arguments(example_inputs)
    try:
        with _quiet() as said, torch_versions.masks_not_examined():
            frame = frozen(module)
            with watched(frame) as changed:
                program = _program(frame, args, kwargs, dynamic, said)
                end, whole = said.tell(), frame is module and not changed
                apart = distance(module, program, args, kwargs) if whole else 0.0
                said.truncate(said.seek(end))
            join_aliases(program)
            if changed and remembers(frame, args, kwargs):
                raise ModelError(_state(changed))
    except ModelError:
        raise
    except Exception as error:  # whatever the module's own code raises, too
        raise ModelError(
            f"{type(module).__name__} can't be exported: {reason(error, module)}{cure(error)}"
        ) from error
    warn_where(module, apart)
    return program


def _program(module: Any, args: Any, kwargs: Any, dynamic: Any, said: io.StringIO) -> Any:
    """By torch.export; where data seem to decide, once more with the numbers known that the module
    holds as buffers, and without what was said of the failure."""
    try:
        return torch_versions.export(torch(), module, args, kwargs, dynamic)
    except Exception as error:
        if not depends_on_data(error):
            raise
        with known(module) as any_known:
            if not any_known:
                raise
            said.truncate(said.seek(0))
            return torch_versions.export(torch(), module, args, kwargs, dynamic)


def _state(changed: Sequence[str]) -> str:
    """What is said of attributes that change from call to call."""
    shown = ", ".join(map(repr, changed[:3])) + (", …" if len(changed) > 3 else "")
    return (
        f"the module changes its own {shown} when it is called, and the same inputs then give"
        " another result, which is not supported: register it as a buffer, which makes it a state,"
        " or make it an input and an output"
    )


def bare(module: Any) -> Any:
    """The module inside of what torch.compile or DataParallel put around it."""
    nn = torch().nn
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return bare(module.module)
    inner = getattr(module, "_orig_mod", None)  # torch.compile's
    return bare(inner) if isinstance(inner, nn.Module) else module


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Without what torch logs and prints of a failure: its reason goes into our message. What is
    printed meanwhile."""
    before, said = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", FutureWarning)  # torch's, about itself
            warnings.filterwarnings("ignore", r"(?s).*_flat_weights")  # and about its LSTM
            yield said
        sys.stderr.write(said.getvalue())  # the module's own words
    finally:
        logging.disable(before)


def call_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments from one tensor, a sequence, or a mapping by name; arrays
    become tensors."""
    if example_inputs is None:
        raise ModelError("example_inputs are needed: the arguments of one call of the module")
    pytree = importlib.import_module("torch.utils._pytree")
    example_inputs = pytree.tree_map_only(np.ndarray, tensor_of, example_inputs)
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, str | bytes):
        raise ModelError(f"example_inputs are {example_inputs!r:.40}: tensors or arrays are wanted")
    if isinstance(example_inputs, Sequence):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def opened(path: Path) -> Any:
    """The program in a `.pt2` file; raises `ModelError` where it holds none."""
    if not path.is_file():
        raise ModelError(f"there is no model {path}")
    if other := _something_else(path):
        raise ModelError(
            f"{path} is no program that torch.export.save wrote, but {other}: save"
            " torch.export.export(module.eval(), example_inputs) by torch.export.save"
        )
    export = torch().export
    try:
        with _quiet():
            _register_operators(path)
            return export.load(str(path))
    except Exception as error:  # zip, pickle, schema: anything
        raise ModelError(
            f"{path} is no program that torch.export.save wrote: {reason(error)}"
        ) from error


def _something_else(path: Path) -> str:
    """What a file is that `torch.export.load` would only stumble over; empty where it may do."""
    if not zipfile.is_zipfile(path):
        return "no zip archive at all (damaged, cut short, or something else)"
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] or name for name in archive.namelist()}
    if "constants.pkl" in names:
        return "a TorchScript module"
    return "what torch.save wrote, weights or a pickled module" if "data.pkl" in names else ""


REGISTERING = {
    b"torch.ops.quantized_decomposed.": "torch.ao.quantization.fx._decomposed",
    b"torch.ops.torchao.": "torchao.quantization",
}
"""The modules that define the operators of quantized programs, which torch alone does not know."""


def _register_operators(path: Path) -> None:
    """Import what defines the operators that a file names."""
    with zipfile.ZipFile(path) as archive:
        listed = [n for n in archive.namelist() if n.endswith(".json")]
        text = b"".join(archive.read(n) for n in listed)
    for name, module in REGISTERING.items():
        if name in text:
            importlib.import_module(module)


def decomposed(program: Any) -> Any:
    """The program without side effects, in core ATen and the operators that have a handler."""
    try:
        with _quiet():
            return torch_versions.lowered(torch(), program, {*HANDLERS, *OF_COMPLEX})
    except Exception as error:
        raise ModelError(
            f"the program can't be decomposed: {reason(error)}{cure(error)}"
        ) from error


def array_of(tensor: Any) -> Any:
    """A tensor as a NumPy array of its own, since training may go on; all floats become f32."""
    plain = tensor.detach().cpu()
    if plain.is_quantized:
        raise ModelError("tensors of torch's quantized types are not supported: use PT2E, whose"
                         " graphs say it in operators")  # fmt: skip
    plain = plain.to_dense() if plain.layout is not torch().strided else plain
    return (plain.float() if plain.is_floating_point() else plain).numpy().copy()


def tensor_of(array: Any) -> Any:
    """A NumPy array as a tensor."""
    return torch().from_numpy(array.copy())


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor."""
    return isinstance(value, torch().Tensor)


def is_random(target: Any) -> bool:
    """Whether an operator draws random numbers."""
    return torch().Tag.nondeterministic_seeded in getattr(target, "tags", ())


def output_names(program: Any, count: int) -> list[str]:
    """A name for each result: dictionary keys, numbers within sequences, `output` for one."""
    pytree = importlib.import_module("torch.utils._pytree")
    spec = program.call_spec.out_spec
    made = pytree.tree_unflatten(list(range(count)), spec)
    found: dict[int, str] = {}
    _name_outputs(made, "", found)
    return [found.get(i, f"output_{i}") for i in range(count)]


def _name_outputs(tree: Any, prefix: str, found: dict[int, str]) -> None:
    if isinstance(tree, int):
        found[tree] = prefix or "output"
        return
    for key, entry in _entries(tree):
        numbered = prefix or ("output" if isinstance(key, int) else "")
        _name_outputs(entry, f"{numbered}_{key}" if numbered else str(key), found)


def _entries(tree: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(tree, Mapping):
        return [(str(key), value) for key, value in tree.items()]
    names = getattr(tree, "_fields", None)
    if names is not None:
        return [(str(name), getattr(tree, name)) for name in names]
    if isinstance(tree, Sequence):
        return [] if isinstance(tree, str) else list(enumerate(tree))
    return [(str(k), v) for k, v in getattr(tree, "__dict__", {}).items()]


