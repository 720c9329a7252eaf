"""What stands before trees goes into their thresholds.

A tree only compares columns. What is added to a column, or multiplied with it, moves the
thresholds; which single exceeds one is found by bisection, so that every row goes the way that
it went.
"""

from __future__ import annotations

import numpy as np

from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul
from irc.ops.selection import Gather
from irc.ops.trees import TreeEnsemble, stored
from irc.passes.float.singles import parted
from irc.value import Value


def trees_of_columns(v: Value) -> Value | None:
    """Trees over chosen columns, as trees over all.

        (%x: f32[1,4])
        %i = const [2, 0] : i64[2]
        %c = gather(%x, %i) {axis = 1} : f32[1,2]
        %f = const [0] : u8[1]
        %t = const [0.5] : f32[1]
        %n = const [false] : b1[1]
        %m = const [true] : b1[1]
        %k = const [1, 2] : u8[1,2]
        %r = const [0] : u8[1,1]
        %l = const [3.0, 4.0] : f32[2,1]
        %b = const [0.0] : f32[1]
        %y = tree_ensemble(%c, %f, %t, %n, %m, %k, %r, %l, %b) {depth = 1} : f32[1,1]
        ->
        %f = const [2] : u8[1]
        %t = const [0.5] : f32[1]
        %n = const [false] : b1[1]
        %m = const [true] : b1[1]
        %k = const [1, 2] : u8[1,2]
        %r = const [0] : u8[1,1]
        %l = const [3.0, 4.0] : f32[2,1]
        %b = const [0.0] : f32[1]
        %y = tree_ensemble(%x, %f, %t, %n, %m, %k, %r, %l, %b) {depth = 1} : f32[1,1]
    """
    match v:
        case TreeEnsemble(
            x=Gather(x=x, indices=Const() as indices, axis=1), feature=Const() as feature
        ) if indices.type.rank == 1 and x.type.rank == 2:
            columns = np.arange(x.shape[1])[indices.array][feature.array]
            return v.replace(x=x, feature=Const(stored(columns), name=feature.name))
    return None


def trees_of_scaled(v: Value) -> Value | None:
    """Trees over columns that were moved or scaled.

        (%x: f32[1,2])
        %s = const [2.0, 4.0] : f32[2]
        %z = mul(%x, %s) : f32[1,2]
        %f = const [1] : u8[1]
        %t = const [2.0] : f32[1]
        %n = const [false] : b1[1]
        %m = const [true] : b1[1]
        %k = const [1, 2] : u8[1,2]
        %r = const [0] : u8[1,1]
        %l = const [3.0, 4.0] : f32[2,1]
        %b = const [0.0] : f32[1]
        %y = tree_ensemble(%z, %f, %t, %n, %m, %k, %r, %l, %b) {depth = 1} : f32[1,1]
        ->
        %f = const [1] : u8[1]
        %t = const [0.5] : f32[1]
        %n = const [false] : b1[1]
        %m = const [true] : b1[1]
        %k = const [1, 2] : u8[1,2]
        %r = const [0] : u8[1,1]
        %l = const [3.0, 4.0] : f32[2,1]
        %b = const [0.0] : f32[1]
        %y = tree_ensemble(%x, %f, %t, %n, %m, %k, %r, %l, %b) {depth = 1} : f32[1,1]
    """
    match v:
        case TreeEnsemble(
            x=Add(a=x, b=Const() as c) | Mul(a=x, b=Const() as c),
            feature=Const() as feature, threshold=Const() as threshold,
            inclusive=Const() as inclusive,
        ) if x.shape == v.x.shape and (c.type.size == 1 or c.shape[-1] == c.type.size):  # fmt: skip
            by = np.broadcast_to(c.array.reshape(-1), x.shape[1:])[feature.array]
            adds = isinstance(v.x, Add)
            if not adds and not np.all(by > 0):
                return None
            with np.errstate(all="ignore"):
                last, first = parted(
                    (lambda real: real + by) if adds else (lambda real: real * by),
                    threshold.array, inclusive.array,
                )  # fmt: skip
            moved = np.where(inclusive.array, first, last)
            return v.replace(x=x, threshold=Const(moved, name=threshold.name))
    return None


RULES = (trees_of_columns, trees_of_scaled)
