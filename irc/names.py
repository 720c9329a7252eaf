"""Names: those that are made of others, and options that don't exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from irc.errors import IRCError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
"""A dataclass of options."""


def identifier(text: str) -> str:
    """A graph's name made of a file's or a class's, such as C and file systems take: letters,
    digits, underscores."""
    made = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "model"
    return f"m_{made}" if made[0].isdigit() else made


def there_are(word: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """What may have been meant by a word that is not known, and all that is: `known`, and what is
    `also` understood but not listed."""
    names = list(known)
    near = get_close_matches(word, [*names, *also], n=3, cutoff=0.7)
    cure = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{cure}there are {', '.join(names)}"


def by_keyword(options: type[Options], what: str, given: Mapping[str, Any]) -> Options:
    """Options made of a caller's keywords; raises `IRCError` for one that is no field, naming the
    nearest and all there are, and for one that is no number or truth value where one must be."""
    kinds = {f.name: str(f.type) for f in fields(options)}
    for name, value in given.items():
        if name not in kinds:
            raise IRCError(f"{what} has no option {name!r}; {there_are(name, kinds)}")
        if not _fits(value, kinds[name]):
            wanted = "true or false" if kinds[name] == "bool" else "a number"
            raise IRCError(f"{what}: {name}={value!r} must be {wanted}")
    return options(**given)


def _fits(value: object, kind: str) -> bool:
    """Whether a value suits a field's annotation, as far as that is a number or a truth value."""
    if kind == "bool":
        return isinstance(value, bool | np.bool_)
    if kind in ("int", "float") or (kind == "float | None" and value is not None):
        return isinstance(value, Real) and not isinstance(value, bool)
    return True
