"""Transformer encoders in torch: what `torch_export` exports besides torchvision's architectures.

Of the shapes and operators of ViT-tiny and of a six-layer MiniLM, with seeded random weights. Like
`torch_export` it imports nothing of the project.
"""

import importlib
from typing import Any

torch: Any = importlib.import_module("torch")
nn = torch.nn
Module: Any = nn.Module


class Attention(Module):
    """Self-attention, spelled with plain products: one projection to queries, keys and values
    (`fused`, as ViT has it), or three (as BERT has them)."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.inner = nn.ModuleList(
            [nn.Linear(width, 3 * width)] if fused else [nn.Linear(width, width) for _ in range(3)]
        )
        self.outer = nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        """[n, t, width] to the same."""
        n, t, width = x.shape
        shape = (n, t, self.heads, width // self.heads)
        parts = [part for linear in self.inner for part in linear(x).split(width, -1)]
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-2, -1) * shape[3] ** -0.5
        mixed = torch.softmax(scores, -1) @ v
        return self.outer(mixed.transpose(1, 2).reshape(n, t, width))


class Layer(Module):
    """Attention and two linear layers with a GELU between them, each beside a residual; norms
    stand `before` them (ViT) or after the sums (BERT)."""

    def __init__(self, width: int, heads: int, *, before: bool) -> None:
        super().__init__()
        self.before = before
        self.attention = Attention(width, heads, fused=before)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Any) -> Any:
        """[n, t, width] to the same."""
        if self.before:
            x = x + self.attention(self.first(x))
            return x + self.mlp(self.second(x))
        x = self.first(x + self.attention(x))
        return self.second(x + self.mlp(x))


class VisionTransformer(Module):
    """ViT-tiny: patches of 16 of an image of 224, width 192, 12 layers of 3 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 192) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 197, 192) * 0.1)
        self.layers = nn.Sequential(*(Layer(192, 3, before=True) for _ in range(12)))
        self.norm = nn.LayerNorm(192)
        self.head = nn.Linear(192, 1000)

    def forward(self, image: Any) -> Any:
        """[1, 3, 224, 224] to [1, 1000]."""
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token, x], 1) + self.position
        return self.head(self.norm(self.layers(x))[:, 0])


class SentenceEncoder(Module):
    """MiniLM-L6 behind its embedding: width 384, 6 layers of 12 heads, mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer(384, 12, before=False) for _ in range(6)))

    def forward(self, tokens: Any) -> Any:
        """[1, t, 384] to [1, 384]."""
        return self.layers(tokens).mean(1)


def encoder(architecture: str) -> tuple[Any, tuple[int, ...]]:
    """A transformer with seeded random weights, and the shape of its input."""
    torch.manual_seed(0)
    if architecture == "vit_tiny":
        return VisionTransformer().eval(), (1, 3, 224, 224)
    return SentenceEncoder().eval(), (1, 64, 384)
