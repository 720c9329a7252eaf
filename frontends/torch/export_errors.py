"""Why torch can't export a module, in a line, and what can be done about it."""

from __future__ import annotations

import importlib
import re
import sysconfig
import traceback
from pathlib import Path
from typing import Any

NO_DATA = (
    "usual cures: torch.where or torch.cond in place of Python's if, while and assert on tensors'"
    " values, sizes that do not depend on data, or exporting the part of the module before that"
    " point"
)
CURES = {
    ("PackedSequence",): (
        "packed sequences can't be exported: give the recurrent layer the padded tensor itself,"
        " which for one sequence is the same"
    ),
    ("data-dependent", "DataDependent", "_local_scalar_dense"): NO_DATA,
    ("DynamicCache",): "give use_cache=False, or a cache of fixed length in buffers, a static one",
    ("not a known type", "Unsupported input type", "unhashable type"): (
        "dictionaries, tuples and lists of tensors need no more; a class of your own is made known"
        " by torch.export.register_dataclass"
    ),
    ("uninitialized parameter",): "call the module once before, which makes its lazy layers",
    ("should be the same", "same dtype"): (
        "give the module and its inputs one type, as by module.float()"
    ),
    ("leaf Variable that requires grad", "requires gradients, and received a mutation"): (
        "the module changes its weights when it is called: if it does so at its first call only,"
        " call it once before"
    ),
    ("is on the meta device", "is on meta", "cpu and meta", "cpu, meta"): (
        "load the weights: a meta device holds none"
    ),
    ("not linked with support", "not compiled with CUDA", "NVIDIA driver"): (
        "leave devices out of the module: new tensors by device=x.device, and no .cuda()"
    ),
    ("positional argument", "required argument", "keyword argument"): (
        "example_inputs are the arguments of one call: a tuple, or a dictionary by name"
    ),
    ("functorch tensor", "fake tensor in the exported program", "torch.autograd.grad",
     "does not require grad"): (
        "gradients can be exported of a module's inputs alone, after x.requires_grad_(True): write"
        " others out as operations, or take them outside"
    ),
    ("quantized nyi",): (
        "torch's quantized types can't be exported: give the module as it was before convert(), or"
        " use PT2E"
    ),
    ("Sparse", "sparse", "cast NotImplemented to Tensor"): (
        "of sparse tensors only constant ones are taken, by dense matrices: give others by"
        " .to_dense()"
    ),
    (".numpy()",): "compute with torch's functions: what NumPy does, torch.export does not see",
}
"""Words in what torch says of an error, or types of what it passed by, and the cure."""
DETECTION = ("torchvision.ops.boxes", "torchvision.models.detection")
"""Where torchvision chooses among boxes, as many as data say."""
HEADS = (
    "of a detector backbone and heads can be exported, for images of one size, as by a module that"
    " returns head(list(backbone(images).values())): choose among its boxes (nms) outside"
)
LONG = 160  # characters, beyond which the first sentence must do
LONGEST = 320  # characters of a reason; torch writes out sizes that hang on hundreds of others


def cure(error: BaseException) -> str:
    """"; " and the usual cure of an error, or nothing."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(str(f.f_globals.get("__name__")).startswith(DETECTION) for f in frames):
        return f"; {HEADS}"
    kinds = {type(v).__name__ for f in frames for v in f.f_locals.values() if not _layered(v)}
    said = " ".join([type(error).__name__, str(error), *kinds - {type(error).__name__}])
    found = (text for words, text in CURES.items() if any(word in said for word in words))
    return next((f"; {text}" for text in found), "")


def _layered(v: Any) -> bool:
    """Whether a value is a layer: what its class is called says nothing of an error."""
    return isinstance(v, importlib.import_module("torch").nn.Module)


def depends_on_data(error: BaseException) -> bool:
    """Whether torch gave up because data would decide what is computed."""
    return cure(error).endswith(NO_DATA)


def reason(error: BaseException, module: Any = None) -> str:
    """The line of torch's message that says why, and where: the layer of the module, and the line
    of the user's code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = re.sub(r"\s*\(unhinted.*", "", lines[0]) if lines else ""
    if len(first) > LONG:
        first = re.split(r"\. (?=[A-Z])", first)[0]
    if len(first) > LONGEST:
        first = f"{first[:LONGEST].rpartition(' ')[0]} …"
    files = re.findall(r'File "(.+?)", line (\d+)', str(error))
    found = [(Path(f).name, n) for f, n in files if not _foreign(f)] or _places(error)
    at = [_layer(error, module), *(f"at {name}, line {line}" for name, line in found[-1:])]
    shown = ", ".join(part for part in at if part)
    kind = "" if len(first) > 20 else f"{type(error).__name__}: "
    return f"{kind}{first.rstrip('. ')}{f' ({shown})' if shown else ''}"


def _layer(error: BaseException, module: Any) -> str:
    """The innermost layer below a module that an error passed through; empty at the top."""
    if module is None:
        return ""
    names = {id(child): name for name, child in module.named_modules() if name}
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    called = [v for v in (frame.f_locals.get("self") for frame in frames) if id(v) in names]
    return f"in {names[id(called[-1])]}, {type(called[-1]).__name__}" if called else ""


def _foreign(file: str) -> bool:
    """Whether a file is torch's or Python's own."""
    torch = Path(str(importlib.import_module("torch").__file__)).parent
    packages, python = (sysconfig.get_path(name) for name in ("purelib", "stdlib"))
    path = Path(file)
    own = path.is_relative_to(python) and not path.is_relative_to(packages)
    return own or path.is_relative_to(torch)


def _places(error: BaseException) -> list[tuple[str, str]]:
    """The lines of code that an error passed through, torch's, Python's and ours left out."""
    own = Path(__file__).parent
    return [
        (Path(frame.filename).name, str(frame.lineno))
        for frame in traceback.extract_tb(error.__traceback__)
        if not _foreign(frame.filename) and Path(frame.filename).parent != own
        and not frame.filename.startswith("<")
    ]  # fmt: skip
