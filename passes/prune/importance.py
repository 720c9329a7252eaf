"""Which channels matter: the share that each has in what its readers compute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irc.channels import Channels
from irc.ops.conv import Conv2d, ConvTranspose2d
from irc.passes.calibration.moments import Moments
from irc.passes.prune.statistics import Layer
from irc.types import Array
from irc.value import Value


def importance(layers: list[Layer], channels: Channels, seen: Mapping[Value, Moments]) -> Array:
    """By class: the energy `E[x_c^2] * sum(w[..., c]^2)` that a channel brings into the layers that
    read it, as a share of each layer's total, averaged over these layers.

    Without samples (`seen` empty) the energy of a channel is taken from the weights that make it.
    A class that no layer reads is judged by the weights that make it alone.
    """
    made = _average(channels.count, [_made(v, channels) for v in layers])
    read = _average(channels.count, [_read(v, channels, made, seen) for v in layers if is_dense(v)])
    return np.where(np.isnan(read), np.nan_to_num(made), read)


def is_dense(v: Layer) -> bool:
    """Whether each output of a layer reads every channel."""
    return not isinstance(v, Conv2d | ConvTranspose2d) or v.groups == 1


def _squares(v: Layer) -> Array:
    """Squared weights [O, C], summed over taps."""
    w = np.asarray(v.w.array, np.float64)  # type: ignore[attr-defined]
    return np.asarray((w * w).reshape(w.shape[0], -1, w.shape[-1]).sum(1))


def _made(v: Layer, channels: Channels) -> tuple[Array, Array]:
    """Classes of a layer's outputs, and the share of each in the layer's weights."""
    return channels.of(v, v, len(v.shape) - 1), _shares(_squares(v).sum(1))


def _read(
    v: Layer, channels: Channels, made: Array, seen: Mapping[Value, Moments]
) -> tuple[Array, Array]:
    """Classes of a layer's inputs, and the share of each in what the layer computes."""
    classes = channels.of(v, v.x, len(v.x.shape) - 1)
    energy = seen[v.x].energy if v.x in seen else np.nan_to_num(made[classes], nan=1.0)
    return classes, _shares(energy * _squares(v).sum(0))


def _shares(a: Array) -> Array:
    total = a.sum()
    return np.asarray(a / total * len(a)) if total > 0 else np.zeros(a.shape)


def _average(count: int, parts: list[tuple[Array, Array]]) -> Array:
    """Mean of the values of each class; NaN for a class without any."""
    total, times = np.zeros(count), np.zeros(count)
    for classes, values in parts:
        np.add.at(total, classes, values)
        np.add.at(times, classes, 1)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / times)
