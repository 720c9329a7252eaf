import numpy as np
import pytest

from irc.errors import GraphError
from irc.graph import Graph, evaluate
from irc.ops.activation import Relu
from irc.ops.cast import Cast
from irc.ops.core import Const, Input
from irc.ops.elementwise import Add
from irc.ops.shape import Reshape
from irc.ops.unary import Abs, Neg
from irc.rewrite import Uses, rebuild, rewrite, sweep
from irc.types import DType
from irc.value import Value

X = Input(DType.F32, (2,), name="x")


def graph_of(*outputs: Value) -> Graph:
    return Graph("g", (X,), outputs, tuple(f"y{i}" for i in range(len(outputs))))


def twice_negated(v: Value) -> Value | None:
    match v:
        case Neg(x=Neg(x=x)):
            return x
    return None


def test_rules_run_until_nothing_changes() -> None:
    v: Value = X
    for _ in range(7):
        v = Neg(v)
    result = rewrite(graph_of(v), (twice_negated,))
    assert [w.op for w in result.order] == ["input", "neg"]
    assert rewrite(result, (twice_negated,)) is result


def test_a_graph_that_no_rule_fits_is_itself() -> None:
    graph = graph_of(Relu(X))
    assert sweep(graph, (twice_negated,)) is graph


def test_a_rule_that_never_rests_is_named() -> None:
    def endless(v: Value) -> Value | None:
        return v.replace() if isinstance(v, Relu) else None

    with pytest.raises(GraphError, match=r"does not come to rest: \['endless'\]"):
        rewrite(graph_of(Relu(X)), (endless,))


def test_two_rules_that_undo_each_other_are_named() -> None:
    def forth(v: Value) -> Value | None:
        return Abs(v.x) if isinstance(v, Relu) else None

    def back(v: Value) -> Value | None:
        return Relu(v.x) if isinstance(v, Abs) else None

    with pytest.raises(GraphError, match=r"forth.*back"):
        rewrite(graph_of(Relu(X)), (forth, back))


def test_a_rule_must_keep_the_type() -> None:
    def flat(v: Value) -> Value | None:
        return Reshape(v, (1, 2)) if isinstance(v, Relu) else None

    def wide(v: Value) -> Value | None:
        return Cast(v, DType.F64) if isinstance(v, Relu) else None

    for rule in (flat, wide):
        with pytest.raises(GraphError, match=f"rule {rule.__name__} turned relu %r of f32"):
            rewrite(graph_of(Relu(X, name="r")), (rule,))


def test_names_are_kept_where_there_is_none() -> None:
    def renamed(v: Value) -> Value | None:
        return Abs(v.x, name="own" if v.name == "b" else "") if isinstance(v, Relu) else None

    a, b = Relu(X, name="a"), Relu(X, name="b")
    made = rewrite(graph_of(a, b), (renamed,))
    assert [v.name for v in made.outputs] == ["a", "own"]


def test_operands_are_rewritten_first_and_shared_once() -> None:
    seen: list[str] = []

    def look(v: Value) -> Value | None:
        seen.append(v.op)
        return None

    shared = Relu(X)
    sweep(graph_of(Add(Neg(shared), shared)), (look,))
    assert seen == ["relu", "neg", "add"]


def test_the_first_rule_that_fits_wins() -> None:
    def to_abs(v: Value) -> Value | None:
        return Abs(v.x) if isinstance(v, Relu) else None

    def to_neg(v: Value) -> Value | None:
        return Neg(v.x) if isinstance(v, Relu) else None

    assert rewrite(graph_of(Relu(X)), (to_abs, to_neg)).outputs[0].op == "abs"
    assert rewrite(graph_of(Relu(X)), (to_neg, to_abs)).outputs[0].op == "neg"


def test_uses_count_operands_and_outputs() -> None:
    a = Relu(X)
    b = Neg(a)
    uses = Uses(graph_of(b, a))
    assert not uses.single(a)
    assert uses.single(b)


def test_a_use_rule_sees_the_counts_of_what_was_rewritten() -> None:
    singles: list[str] = []

    def note(v: Value, uses: Uses) -> Value | None:
        for o in v.operands:
            if uses.single(o):
                singles.append(f"{v.op}({o.op})")
        return None

    inner = Neg(Neg(Relu(X)))
    shared = Abs(X)
    rewrite(graph_of(Abs(inner), Add(shared, shared)), (twice_negated,), (note,))
    assert "abs(relu)" in singles
    assert "add(abs)" not in singles


def test_rebuilding_may_change_types() -> None:
    graph = graph_of(Add(Relu(X), Const(np.ones(2, np.float32))))

    def doubled(v: Value, made: Value) -> Value:
        return Cast(made, DType.F64) if isinstance(v, Add) else made

    made = rebuild(graph, doubled)
    assert made.outputs[0].type.dtype is DType.F64
    assert evaluate(made, {"x": [-1, 1]})["y0"].tolist() == [1.0, 2.0]
    assert rebuild(graph, lambda _, made: made) is graph
