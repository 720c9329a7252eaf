"""Convolutions whose taps look where offsets say (deformable convolution, Dai et al., 2017; with a
factor for each tap, Zhu et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irc.errors import ModelError
from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder
from irc.frontends.patches import grid_sampled, patch_counts
from irc.ops.elementwise import Add, Mul
from irc.ops.shape import Concat
from irc.types import Array, Shape
from irc.value import Value


@dataclass(frozen=True)
class Deformable:
    """What is fixed: pads are `[begin…, end…]`; the channels of each of `offset_groups` look at
    places of their own."""

    kernel: Shape
    strides: Shape
    pads: Shape
    dilations: Shape
    groups: int
    offset_groups: int

    @property
    def taps(self) -> int:
        """How many elements of a channel a result is a sum of."""
        return self.kernel[0] * self.kernel[1]

    def __call__(
        self, b: Builder, x: Value, w: Value, offset: Value, bias: Value | None, mask: Value | None
    ) -> Value:
        """x [N,C,H,W] by w [O,C/groups,kh,kw]; offset [N,2*G*taps,oh,ow], rows before columns, and
        mask [N,G*taps,oh,ow], G being the groups of offsets.

        The image is sampled once for each tap, `[N,C,taps,oh*ow]`; a convolution whose kernel is
        as high as there are taps makes the sums.
        """
        n, channels, oh, ow = self.checked(x, w, offset, mask)
        part = channels // self.offset_groups
        images = [
            self._sampled(b, image, self._grid(b, offset, i, x.shape[2:]))
            for i, image in enumerate(self._parts(b, x, part))
        ]
        if mask is not None:
            factors = self._parts(b, mask, self.taps)
            images = [
                b.add(Mul(image, b.reshape(f, (n, 1, self.taps, oh * ow))))
                for image, f in zip(images, factors, strict=True)
            ]
        sampled = images[0] if len(images) == 1 else b.add(Concat(tuple(images), 1))
        weights = b.reshape(w, (*w.shape[:2], self.taps, 1))
        y = forms.conv(b, sampled, weights, bias, (1, 1), (0,) * 4, (1, 1), self.groups)
        return b.reshape(y, (n, w.shape[0], oh, ow))

    def checked(self, x: Value, w: Value, offset: Value, mask: Value | None) -> Shape:
        """N, C, oh and ow; raises `ModelError` for shapes that don't fit."""
        if x.type.rank != 4 or w.type.rank != 4 or len(self.kernel) != 2:
            raise ModelError(f"{x.type} by {w.type}: two spatial axes are supported")
        n, channels, *sizes = x.shape
        oh, ow = patch_counts(sizes, self.kernel, self.strides, self.pads, self.dilations)
        g = self.offset_groups
        if g < 1 or channels % g or self.groups < 1 or channels != self.groups * w.shape[1]:
            raise ModelError(f"{x.type} by {w.type} in {self.groups} groups, {g} of offsets")
        wanted = (n, 2 * g * self.taps, oh, ow)
        if offset.shape != wanted or min(oh, ow) < 1:
            raise ModelError(f"offsets {offset.type}: {list(wanted)} is needed")
        if mask is not None and mask.shape != (n, g * self.taps, oh, ow):
            raise ModelError(f"mask {mask.type}: {[n, g * self.taps, oh, ow]} is needed")
        return n, channels, oh, ow

    def _parts(self, b: Builder, x: Value, size: int) -> list[Value]:
        """So many channels each, one part for each group of offsets."""
        starts = range(0, size * self.offset_groups, size)
        return [forms.gather_axis(b, x, range(i, i + size), 1) for i in starts]

    def _grid(self, b: Builder, offset: Value, group: int, sizes: Shape) -> Value:
        """Where a group's taps look, `[N,taps*oh,ow,2]` as GridSample has it: of `s` elements those
        at `p` have the coordinate `(2 p + 1) / s - 1`, the last axis comes first."""
        n, _, oh, ow = offset.shape
        own = range(group * 2 * self.taps, (group + 1) * 2 * self.taps)
        apart = b.reshape(forms.gather_axis(b, offset, own, 1), (n, self.taps, 2, oh, ow))
        turned = b.transpose(forms.gather_axis(b, apart, (1, 0), 2), (0, 1, 3, 4, 2))
        extents = np.array(sizes[::-1], np.float64)
        start = (2 * self._places(oh, ow) + 1) / extents - 1
        moved = b.add(Mul(b.reshape(turned, (n, self.taps * oh, ow, 2)), _const(b, 2 / extents)))
        return b.add(Add(moved, _const(b, start.reshape(1, self.taps * oh, ow, 2))))

    def _places(self, oh: int, ow: int) -> Array:
        """Where the taps look without offsets, column and row: [taps, oh, ow, 2]."""
        rows, columns = (
            (np.arange(count) * stride - pad)[np.newaxis] + np.arange(k)[:, np.newaxis] * dilation
            for count, stride, pad, k, dilation in zip(
                (oh, ow), self.strides, self.pads, self.kernel, self.dilations, strict=False
            )
        )
        kh, kw = self.kernel
        shape = (kh, kw, oh, ow)
        x = np.broadcast_to(columns[np.newaxis, :, np.newaxis, :], shape)
        y = np.broadcast_to(rows[:, np.newaxis, :, np.newaxis], shape)
        return np.stack([x, y], -1).reshape(self.taps, oh, ow, 2)

    def _sampled(self, b: Builder, x: Value, grid: Value) -> Value:
        """[N, C, taps, oh * ow]: zeros outside of the image."""
        y = grid_sampled(b, x, grid, "linear", "zeros", align_corners=False)
        n, channels, rows, columns = y.shape
        return b.reshape(y, (n, channels, self.taps, rows // self.taps * columns))


def _const(b: Builder, array: Array) -> Value:
    return b.const(array.astype(np.float32))
