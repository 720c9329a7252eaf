"""How the axes of a reshape correspond."""

from __future__ import annotations

from dataclasses import dataclass

from irc.types import Shape


@dataclass(frozen=True)
class Group:
    """Neighbouring axes before a reshape that become neighbouring axes after it."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def grouped(before: Shape, after: Shape) -> list[Group]:
    """The smallest groups of a reshape, in order; together they hold every axis once.

    Axes of extent 1 go with a neighbour. Empty where a shape has no axis or no element.
    """
    if not before or not after or 0 in before:
        return []
    groups: list[Group] = []
    i = j = 0
    while i < len(before) and j < len(after):
        start_i, start_j = i, j
        size_i, size_j = before[i], after[j]
        i, j = i + 1, j + 1
        while size_i != size_j:
            if size_i < size_j:
                size_i, i = size_i * before[i], i + 1
            else:
                size_j, j = size_j * after[j], j + 1
        groups.append(Group(tuple(range(start_i, i)), tuple(range(start_j, j))))
    last = groups.pop()
    rest_i, rest_j = range(i, len(before)), range(j, len(after))
    return [*groups, Group((*last.before, *rest_i), (*last.after, *rest_j))]
