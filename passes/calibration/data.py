"""Calibration data: whatever the caller has, as checked batches of exactly the inputs' shapes."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irc.errors import DataError
from irc.graph import Graph, cure_unread, evaluate
from irc.ops.core import Input
from irc.passes.calibration.missing import may_lack
from irc.streams import initial_states, next_states
from irc.types import Array

Batch = dict[str, Array]
Source = str | Path | Array | Mapping[str, Any] | Iterable[Any]
"""A path of an `.npz`, `"random:N"`, an array (one input), a mapping of arrays with samples on
the first axis, or an iterable, as a DataLoader is, whose items are a sample or a batch each: a
mapping by input, an array, or a sequence `(input, …, label, …)` that begins with the inputs in
their order. What an item holds besides, as labels, is left out. Wherever an array may
stand, a torch tensor may."""

SEED = 0


def batches(graph: Graph, source: Source) -> Iterator[Batch]:
    """The samples of `source`, one feed of the graph's inputs at a time.

    An array may hold samples on its first axis in place of the input's batch axis, or whole
    inputs on an axis of its own. States may be left out: samples are then steps of a sequence, and
    each takes the states that the one before left; one that gives them begins another sequence.
    Raises `DataError` for a missing file, wrong names, shapes or dtypes, NaN (but where trees alone
    read it) or infinity, and where there is no sample at all.
    """
    made = _with_states(graph, _batches(graph, source))
    try:
        first = next(made)
    except StopIteration:
        raise DataError(f"calibration data for {graph.name} holds no sample") from None
    return itertools.chain([first], made)


def _batches(graph: Graph, source: Source) -> Iterator[Batch]:
    if isinstance(source, str) and source.startswith("random:"):
        return random_batches(graph, source.removeprefix("random:"))
    if isinstance(source, str | Path):
        return _split(graph, read_npz(Path(source)))
    if isinstance(source, np.ndarray):
        return _split(graph, {_only_input(graph).name: source})
    if isinstance(source, Mapping):
        return _split(graph, source)
    if isinstance(source, Iterable):
        return _items(graph, source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):  # a Dataset
        return _items(graph, map(source.__getitem__, range(len(source))))
    raise DataError(f"calibration data of type {type(source).__name__} can't be read")


def _with_states(graph: Graph, feeds: Iterator[Batch]) -> Iterator[Batch]:
    """The feeds with the states that they leave out: the initial ones, then what the graph makes of
    the feed before."""
    names = {s.output for s in graph.states}
    kept = [(n, v) for n, v in zip(graph.output_names, graph.outputs, strict=True) if n in names]
    step = Graph(graph.name, graph.inputs, tuple(v for _, v in kept), tuple(n for n, _ in kept))
    before: Batch | None = None
    for feed in feeds:
        states: Batch = {}
        if any(s.input not in feed for s in graph.states):
            states = initial_states(graph.states) if before is None else (
                next_states(graph.states, evaluate(step, before))
            )  # fmt: skip
        before = {**states, **feed}
        yield before


def read_npz(path: Path) -> Batch:
    """The arrays of an `.npz`; raises `DataError` where it can't be read."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is no .npz archive: save it with np.savez(path, name=array)")
        with archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(f"can't read data {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(
            f"{path} is no .npz archive of numbers: save it with np.savez(path, name=array)"
        ) from None


def random_batches(graph: Graph, count: str) -> Iterator[Batch]:
    """N samples of standard normal noise (integers: all zero): good for trying out, no more."""
    if not count.isdecimal() or int(count) < 1:
        raise DataError(f"calibration 'random:{count}' needs a positive number, as in random:16")
    rng = np.random.default_rng(SEED)
    return ({v.name: _noise(v, rng) for v in _given(graph)} for _ in range(int(count)))


def _noise(v: Input, rng: np.random.Generator) -> Array:
    if v.type.dtype.is_float:
        return rng.standard_normal(v.shape).astype(v.type.dtype.numpy)
    return np.zeros(v.shape, v.type.dtype.numpy)


def _given(graph: Graph, data: Collection[str] = ()) -> list[Input]:
    """The inputs that data hold: all but states, and of these the ones that `data` names."""
    states = {s.input for s in graph.states}
    return [v for v in graph.inputs if v.name in data or v.name not in states]


def _only_input(graph: Graph) -> Input:
    listed = _given(graph)
    if len(listed) != 1:
        names = [v.name for v in listed]
        cure = cure_unread(graph, ())
        raise DataError(f"{graph.name} has the inputs {names}: give calibration data by name{cure}")
    return listed[0]


def _check_names(graph: Graph, given: Mapping[str, Any], *, more: bool = False) -> None:
    """Every input has its data, and there are no others; `more` allows them, as labels are."""
    expected = {v.name for v in _given(graph, given)}
    if not (expected <= set(given) if more else expected == set(given)):
        raise DataError(
            f"calibration data is for {sorted(map(str, given))}, {graph.name} takes"
            f" {sorted(expected)}{cure_unread(graph, given)}"
        )


def _split(graph: Graph, arrays: Mapping[str, Any]) -> Iterator[Batch]:
    """Arrays with samples on the first axis, cut into inputs."""
    _check_names(graph, arrays)
    parts = {v: _samples(v, _array(arrays[v.name])) for v in _given(graph, arrays)}
    counts = {v.name: len(p) for v, p in parts.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"calibration data holds unlike numbers of samples: {counts}")
    for i in range(next(iter(counts.values()), 0)):
        yield {v.name: _checked(graph, v, p[i], i) for v, p in parts.items()}


def _samples(v: Input, array: Array) -> Array:
    """`array` as [samples, *shape of the input]; a last incomplete batch is left out."""
    if array.ndim == len(v.shape) + 1 and array.shape[1:] == v.shape:
        return array
    if v.shape and array.ndim == len(v.shape) and array.shape[1:] == v.shape[1:]:
        batch = max(v.shape[0], 1)
        count = len(array) // batch
        if len(array) and not count:
            raise DataError(f"input {v.name}: {len(array)} samples don't fill a batch of {batch}")
        return array[: count * batch].reshape(count, *v.shape)
    raise DataError(
        f"input {v.name}: calibration data of shape {list(array.shape)} given; samples on the first"
        f" axis of {v.type} are wanted{_cure(v, array)}"
    )


def _cure(v: Input, array: Array) -> str:
    """What may be the matter with data of another shape."""
    if v.type.dtype.is_float and array.dtype == np.uint8:
        return "; --input-u8 mean=..,std=.. takes pixels [samples,H,W,C]"
    wanted = sorted(v.shape), sorted(v.shape[1:])
    if sorted(array.shape) == wanted[0] or sorted(array.shape[1:]) in wanted:
        return "; the axes seem to stand in another order"
    return ""


def _items(graph: Graph, items: Iterable[Any]) -> Iterator[Batch]:
    index = 0
    for item in items:
        given = item if isinstance(item, Mapping) else _positional(graph, item)
        _check_names(graph, given, more=True)
        parts = {v: _fit(v, _array(given[v.name])) for v in _given(graph, given)}
        for i in range(min(map(len, parts.values()), default=0)):
            # Copied: whoever makes items one by one may write the next one over the last.
            yield {v.name: np.array(_checked(graph, v, p[i], index)) for v, p in parts.items()}
            index += 1


def _positional(graph: Graph, item: Any) -> Mapping[str, Any]:
    """The inputs by name of an item without names: an array, or a sequence that begins with them.

    Entries behind the inputs, labels as a rule, are left out. Where entries are all alike they are
    samples of the one input.
    """
    if not _is_sequence_of_arrays(item):
        return {_only_input(graph).name: item}
    first = item[0]
    if isinstance(first, Mapping):
        return first
    if _is_sequence_of_arrays(first):  # ((input, input), label)
        return _positional(graph, first)
    inputs = _given(graph)
    alike = len(item) > 1 and all(getattr(e, "shape", None) == first.shape for e in item)
    if alike and len(inputs) == 1:
        return {inputs[0].name: np.stack([_array(e) for e in item])}
    if len(item) < len(inputs):
        names = [v.name for v in inputs]
        raise DataError(f"an item of {len(item)} arrays is given, {graph.name} takes {names}")
    return {v.name: entry for v, entry in zip(inputs, item, strict=False)}


def _is_sequence_of_arrays(item: Any) -> bool:
    """Whether it is a sequence that begins with an array, a mapping, or such a sequence."""
    if not isinstance(item, list | tuple) or not item:
        return False
    first = item[0]
    return hasattr(first, "shape") or isinstance(first, Mapping) or _is_sequence_of_arrays(first)


def _array(data: Any) -> Array:
    """An array of whatever holds one; tensors of torch are told by their method, since torch is
    not imported here."""
    if hasattr(data, "detach"):
        data = data.detach().cpu()
        data = data.float() if data.is_floating_point() else data
    return np.asarray(data)


def _fit(v: Input, array: Array) -> Array:
    """An item is one input, one sample without the batch axis, or a batch of samples."""
    if array.shape == v.shape or (v.shape[:1] == (1,) and array.shape == v.shape[1:]):
        return array.reshape(1, *v.shape)
    return _samples(v, array)


def _checked(graph: Graph, v: Input, array: Array, index: int) -> Array:
    """One feed of an input in its dtype; raises `DataError` for other kinds, NaN and infinity;
    trees know what to do about what is missing."""
    if not v.type.dtype.is_float:
        if array.dtype != v.type.dtype.numpy:
            raise DataError(f"input {v.name}: dtype {array.dtype} given, {v.type} wanted")
        return array
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"input {v.name}: dtype {array.dtype} given, numbers are wanted")
    finite = np.isfinite(array)
    lacks = not finite.all() and may_lack(graph, v)
    if not np.all(finite | (np.isnan(array) if lacks else False)):
        held, cure = ("", "") if lacks else ("NaN or ", "; fill in what is missing")
        raise DataError(f"input {v.name}: sample {index} holds {held}infinity, which no integer"
                        f" stands for{cure}")  # fmt: skip
    with np.errstate(over="ignore"):
        made = array.astype(v.type.dtype.numpy, copy=False)
    if np.any(np.isinf(made)):
        raise DataError(f"input {v.name}: sample {index} holds numbers too large for {v.type}")
    return made
