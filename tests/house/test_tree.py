"""What is tested is the tree that the tests stand in."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["irc", "irc.frontends", "irc.passes", "irc.backends"])
def test_the_packages_are_this_trees(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).resolve().is_relative_to(ROOT.resolve())
