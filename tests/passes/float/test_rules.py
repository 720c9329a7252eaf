"""The harness of rules fails where it should."""

import pytest

from irc.ops.activation import Clip, Tanh
from irc.value import Value
from tests.passes.rules import check_rule


def undrawn(v: Value) -> Value | None:
    """Says nothing of what it does."""
    del v
    return None


def wrong_meaning(v: Value) -> Value | None:
    """Computes something else.

    (%x: f32[4])
    %y = tanh(%x) : f32[4]
    ->
    %y = clip(%x) {lo = -1.0, hi = 1.0} : f32[4]
    """
    return Clip(v.x, -1.0, 1.0) if isinstance(v, Tanh) else None


def idle(v: Value) -> Value | None:
    """Does not do what it draws.

    (%x: f32[4])
    %y = tanh(%x) : f32[4]
    ->
    %x
    """
    del v
    return None


def restless(v: Value) -> Value | None:
    """Never comes to rest.

    (%x: f32[4])
    %y = tanh(%x) : f32[4]
    ->
    %y = tanh(%x) : f32[4]
    """
    return Tanh(v.x) if isinstance(v, Tanh) else None


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (undrawn, "draws no rewriting"),
        (wrong_meaning, "Not equal to tolerance"),
        (idle, "it makes"),
        (restless, "does not come to rest"),
    ],
)
def test_harness_rejects(rule: object, complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        check_rule(rule)  # type: ignore[arg-type]
