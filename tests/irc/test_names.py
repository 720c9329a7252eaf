"""Names that are made of others, options by keyword."""

from typing import Any

import pytest

import irc
from irc.names import identifier


def test_names_of_graphs_are_identifiers() -> None:
    assert identifier("torch-jit export.1") == "torch_jit_export_1"
    assert identifier("3d-net") == "m_3d_net"
    assert identifier("—") == "model"


TEXT = "graph @g(%x: f32[1,6]) {\n  %y = relu(%x) : f32[1,6]\n  return %y\n}"


def test_options_that_do_not_exist_are_named_beside_those_that_do() -> None:
    graph = irc.parse(TEXT)
    with pytest.raises(irc.IRCError, match=r"no option 'activation'; did you mean activations\?"):
        irc.quantize(graph, "random:2", activation=16)
    with pytest.raises(irc.IRCError, match="prune has no option 'zzz'; there are ratio, multiple"):
        irc.prune(graph, 0.5, zzz=1)


def test_options_of_another_kind_are_refused() -> None:
    graph, wrong = irc.parse(TEXT), pytest.raises(irc.IRCError, match="must be")
    options: dict[str, Any]
    for options in ({"min_sqnr": "20"}, {"percentile": True}, {"pair_safe": "no"}):
        with wrong:
            irc.quantize(graph, "random:2", **options)
    half: Any = "half"
    with wrong:
        irc.prune(graph, half)
