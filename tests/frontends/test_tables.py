"""The tables of operators."""

import pytest

from irc.frontends.onnx.ops import table as onnx_table
from irc.frontends.torch.ops import table as torch_table


def test_an_operator_has_one_handler() -> None:
    onnx_table.handles("Unheard")
    with pytest.raises(TypeError, match=r"twice: .'Relu'"):
        onnx_table.handles("Unheard", "Relu")
    with pytest.raises(TypeError, match=r"twice: .'aten\.erfc'"):
        torch_table.handles("aten.erfc")
