"""Float and QDQ graphs as ONNX models, for other tools: the way back out of the IR."""

from irc.backends.onnx import (  # fill the table  # noqa: F401
    images,
    indexing,
    operators,
    recurrent,
    shapes,
    trees,
)  # fmt: skip
from irc.backends.onnx.writer import OPSET, export

__all__ = ["OPSET", "export"]
