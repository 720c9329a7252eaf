"""PyTorch modules become graphs."""

from irc.frontends.torch.importer import load, load_file

__all__ = ["load", "load_file"]
