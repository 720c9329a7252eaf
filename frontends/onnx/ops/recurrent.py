"""LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from irc.frontends import normal_forms as forms
from irc.frontends.builder import Builder
from irc.frontends.onnx.ops.table import Node, Results, handles
from irc.frontends.recurrences import (
    GRU,
    LSTM,
    RNN,
    Cell,
    Function,
    Gru,
    Lstm,
    Run,
    Steps,
    between,
    part,
    relu,
    rnn,
    sigmoid,
    tanh,
    zeros,
)
from irc.ops.activation import Elu, HardSigmoid, LeakyRelu, Softplus, Softsign
from irc.ops.core import Const
from irc.ops.elementwise import Add, Mul
from irc.ops.functions import ThresholdedRelu
from irc.types import Array
from irc.value import Value

Parameters = Iterator[float]


def _affine(alpha: float, beta: float) -> Function:
    def f(b: Builder, x: Value) -> Value:
        scaled = b.add(Mul(x, b.const(np.asarray(alpha, np.float32))))
        return b.add(Add(scaled, b.const(np.asarray(beta, np.float32))))

    return f


def _scaled_tanh(alpha: float, beta: float) -> Function:
    def f(b: Builder, x: Value) -> Value:
        inner = tanh(b, b.add(Mul(x, b.const(np.asarray(beta, np.float32)))))
        return b.add(Mul(inner, b.const(np.asarray(alpha, np.float32))))

    return f


PLAIN: Mapping[str, Function] = {
    "relu": relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softsign": lambda b, x: b.add(Softsign(x)),
    "softplus": lambda b, x: b.add(Softplus(x)),
}
WITH_ALPHA: Mapping[str, tuple[float, Callable[[float], Function]]] = {
    "leakyrelu": (0.01, lambda a: lambda b, x: b.add(LeakyRelu(x, a))),
    "thresholdedrelu": (1.0, lambda a: lambda b, x: b.add(ThresholdedRelu(x, a))),
    "elu": (1.0, lambda a: lambda b, x: b.add(Elu(x, a))),
}
WITH_BOTH: Mapping[str, tuple[float, float, Callable[[float, float], Function]]] = {
    "affine": (1.0, 0.0, _affine),
    "scaledtanh": (1.0, 1.0, _scaled_tanh),
    "hardsigmoid": (0.2, 0.5, lambda a, c: lambda b, x: b.add(HardSigmoid(x, a, c))),
}


@handles("LSTM")
def lstm(node: Node) -> Results:
    """Gates in the order i, o, f, g; peepholes i, o, f."""
    return _lstm(node, _Layers(node, 4, LSTM))


@handles("com.microsoft.DynamicQuantizeLSTM")
def quantized_lstm(node: Node) -> Results:
    """onnxruntime's LSTM over integer weights, which it quantizes states for at run time: a float
    one over what the weights stand for."""
    weights = (_real_weights(node, 1, 8), _real_weights(node, 2, 10))
    return _lstm(node, _Layers(node, 4, LSTM, weights))


def _lstm(node: Node, layers: _Layers) -> Results:
    coupled = "input_forget" in node.given and bool(node.integer("input_forget"))
    runs = []
    for d, (steps, cell, w, r, bias) in enumerate(layers.directions()):
        layer = Lstm(r, "iofg", cell, _peepholes(layers, d), coupled)
        runs.append(layer.run(steps, w, _sum(node, bias), layers.state(5, d), layers.state(6, d)))
    return layers.results(runs)


def _real_weights(node: Node, i: int, scale: int) -> Value:
    """[D, K, gates*H] integers with scales per direction, or per direction and column, as reals
    [D, gates*H, K]."""
    array = node.constant(i, "weights").astype(np.float64)
    factor, zero = node.constant(scale, "scales"), node.constant(scale + 1, "zero points")
    shape = (factor.shape[0], 1, -1) if factor.ndim == 2 else (-1, 1, 1)
    if array.ndim != 3:
        node.fail(f"weights of shape {list(array.shape)} must have 3 axes")
    real = (array - zero.reshape(shape)) * factor.reshape(shape)
    return node.builder.const(np.ascontiguousarray(real.transpose(0, 2, 1), np.float32))


@handles("GRU")
def gru(node: Node) -> Results:
    """Gates in the order z, r, then the candidate."""
    layers = _Layers(node, 3, GRU)
    after = bool(node.integer("linear_before_reset"))
    runs = []
    for d, (steps, cell, w, r, bias) in enumerate(layers.directions()):
        layer = Gru(r, 0, after, cell)
        wb, rb = (None, None) if bias is None else bias
        runs.append(layer.run(steps, w, wb, rb, layers.state(5, d)))
    return layers.results(runs)


@handles("RNN")
def simple(node: Node) -> Results:
    """One function of the sum."""
    layers = _Layers(node, 1, RNN)
    runs = [
        rnn(steps, r, cell, w, _sum(node, bias), layers.state(5, d))
        for d, (steps, cell, w, r, bias) in enumerate(layers.directions())
    ]
    return layers.results(runs)


Biases = tuple[Value, Value]


class _Layers:
    """What the three operators have in common: x [T, N, I], W [D, gates*H, I], R [D, gates*H, H],
    B [D, 2*gates*H], the lengths, and the initial states [D, N, H]."""

    def __init__(
        self, node: Node, gates: int, cell: Cell, weights: tuple[Value, Value] | None = None
    ) -> None:
        self.node, self.gates, self.plain = node, gates, cell
        self.weights = weights or (node.x(1), node.x(2))
        direction = node.text("direction")
        if direction not in ("forward", "reverse", "bidirectional"):
            node.fail(f"direction {direction!r} is not known")
        self.reverse = [direction == "reverse"] if direction != "bidirectional" else [False, True]
        layout = node.given.get("layout")
        self.batch_first = layout is not None and node.integer("layout") == 1
        node.ignore("layout", "output_sequence")
        self.x = self._time_first(node.x(0), (1, 0, 2))
        self.hidden = self._hidden()
        self.lengths = self._lengths()

    def _time_first(self, x: Value, perm: tuple[int, ...]) -> Value:
        if x.type.rank != 3:
            self.node.fail(f"{x.type} must have 3 axes")
        return self.node.builder.transpose(x, perm) if self.batch_first else x

    def _hidden(self) -> int:
        node, count, gates = self.node, len(self.reverse), self.gates
        w, r = self.weights
        size = r.shape[-1] if r.shape else 0
        stated = node.integer("hidden_size") if "hidden_size" in node.given else size
        fits = w.shape == (count, gates * size, self.x.shape[2]) and stated == size
        if not fits or r.shape != (count, gates * size, size):
            node.fail(
                f"x {self.x.type}, W {w.type} and R {r.type} are not those of {count} direction(s)"
                f" of {stated} states"
            )
        bias = node.optional(3)
        if bias is not None and bias.shape != (count, 2 * gates * size):
            node.fail(f"B must be [{count}, {2 * gates * size}], it is {bias.type}")
        return size

    def _lengths(self) -> Array | None:
        if not self.node.has(4):
            return None
        lengths = self.node.constant(4, "sequence lengths").astype(np.int64).reshape(-1)
        steps, batch = self.x.shape[:2]
        if lengths.shape != (batch,) or lengths.min(initial=0) < 0 or lengths.max() > steps:
            self.node.fail(f"sequence lengths {lengths.tolist()} are not those of {self.x.type}")
        return None if np.all(lengths == steps) else lengths

    def directions(self) -> Iterator[tuple[Steps, Cell, Value, Value, Biases | None]]:
        """For each direction its sequence, cell, W, R, and both biases."""
        node, build = self.node, self.node.builder
        cells = self._cells()
        for d, reverse in enumerate(self.reverse):
            steps = Steps(build, self.x, reverse, self.lengths)
            w, r = (self.one_of(whole, d) for whole in self.weights)
            biases = None
            if node.has(3):
                both = self.of(3, d)
                biases = (part(build, both, 0, 2, 0), part(build, both, 1, 2, 0))
            yield steps, cells[d], w, r, biases

    def of(self, i: int, d: int) -> Value:
        """Input `i` of one direction."""
        return self.one_of(self.node.x(i), d)

    def one_of(self, whole: Value, d: int) -> Value:
        """A tensor's part that belongs to one direction."""
        build = self.node.builder
        return build.reshape(between(build, whole, d, d + 1, 0), whole.shape[1:])

    def state(self, i: int, d: int) -> Value:
        """An initial state of one direction, [1, N, H]; zeros where it is not given."""
        build = self.node.builder
        if not self.node.has(i):
            return zeros(self.x, self.hidden)
        given = self._time_first(self.node.x(i), (1, 0, 2))
        wanted = (len(self.reverse), self.x.shape[1], self.hidden)
        if given.shape != wanted:
            self.node.fail(f"the initial state {given.type} must be {list(wanted)}")
        return between(build, given, d, d + 1, 0)

    def results(self, runs: list[Run]) -> Results:
        """Y [T, D, N, H], and the last states [D, N, H]."""
        build = self.node.builder
        steps, batch = self.x.shape[:2]
        whole = [build.reshape(r.hidden, (steps, 1, batch, self.hidden)) for r in runs]
        y = forms.concat(build, whole, 1)
        states = zip(*(r.states for r in runs), strict=True)
        last = [forms.concat(build, each, 0) for each in states]
        if not self.batch_first:
            return (y, *last)
        batch_first = (build.transpose(v, (1, 0, 2)) for v in last)
        return (build.transpose(y, (2, 0, 1, 3)), *batch_first)

    def _cells(self) -> list[Cell]:
        """The functions of each direction."""
        node, count = self.node, len(self.plain.functions)
        clip = node.real("clip") if "clip" in node.given else None
        found = node.attribute("activations") if "activations" in node.given else None
        names = [n.decode("utf-8", "replace").lower() for n in found.strings] if found else []
        alpha, beta = self._floats("activation_alpha"), self._floats("activation_beta")
        given = [self._function(n, alpha, beta) for n in names]
        expected = count * len(self.reverse)
        if names and len(names) != expected:
            node.fail(f"{len(names)} activations, {expected} are needed")
        cells = []
        for d in range(len(self.reverse)):
            functions = tuple(given[d * count : (d + 1) * count]) or self.plain.functions
            same = functions == self.plain.functions and clip is None
            cells.append(self.plain if same else Cell(functions, clip))
        return cells

    def _floats(self, name: str) -> Parameters:
        return iter(self.node.reals(name) or ())

    def _function(self, name: str, alpha: Parameters, beta: Parameters) -> Function:
        if name in PLAIN:
            return PLAIN[name]
        if name in WITH_ALPHA:
            usual, of_alpha = WITH_ALPHA[name]
            return of_alpha(next(alpha, usual))
        if name in WITH_BOTH:
            first, second, of_both = WITH_BOTH[name]
            return of_both(next(alpha, first), next(beta, second))
        self.node.fail(f"activation {name!r} is not known")


def _sum(node: Node, biases: Biases | None) -> Value | None:
    return None if biases is None else node.builder.add(Add(*biases))


def _peepholes(layers: _Layers, d: int) -> dict[str, Value] | None:
    node = layers.node
    if not node.has(7):
        return None
    weights = layers.of(7, d)
    if weights.shape != (3 * layers.hidden,):
        node.fail(f"P must be [{len(layers.reverse)}, {3 * layers.hidden}], it is {weights.type}")
    found = {n: part(node.builder, weights, i, 3, 0) for i, n in enumerate("iof")}
    still = all(isinstance(v, Const) and not v.array.any() for v in found.values())
    return None if still else found
