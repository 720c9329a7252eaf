"""What a program that PT2E quantized means: its graph evaluated in float64.

PyTorch computes it in float32, so that the order of a sum decides how a value near a tie rounds.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.images import Floats


def exactly(program: Any, images: Floats) -> NDArray[np.float64]:
    """What the graph gives, one image at a time, computed in float64: f64[n, k]."""
    torch = importlib.import_module("torch")

    class Exact(torch.fx.Interpreter):  # type: ignore[name-defined]
        def run_node(self, n: Any) -> Any:
            args, _ = self.fetch_args_kwargs_from_env(n)
            name = str(n.target)
            if "dequantize_per" in name:
                return dequantized(*args[:4] if "channel" in name else args[:3])
            if "quantize_per_tensor" in name:
                return quantized(*args)
            found = super().run_node(n)
            return found.double() if getattr(found, "dtype", None) is torch.float32 else found

    def dequantized(q: Any, scale: Any, zero: Any, axis: int | None = None) -> Any:
        if axis is not None:
            shape = [-1 if i == axis else 1 for i in range(q.ndim)]
            scale, zero = scale.double().reshape(shape), zero.reshape(shape)
        return (q.double() - zero) * scale

    def quantized(x: Any, scale: float, zero: int, low: int, high: int, dtype: Any) -> Any:
        return torch.clamp(torch.round(x / scale) + zero, low, high).to(dtype)

    with torch.no_grad():
        given = (Exact(program).run(torch.from_numpy(x[None]))[0] for x in images)
        return np.stack([np.asarray(y).reshape(-1) for y in given])
