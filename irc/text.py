"""IR text: its grammar, and files with their sidecar of constants. `irc/printer.py` writes it,
`irc/parser.py` reads it.

    graph    = "graph" "@" NAME "(" [input {"," input}] ")" [arena] "{" {node} return "}"
    input    = VALUE ":" type [state] [place]
    state    = "from" STRING "=" (list | HASH)
    node     = VALUE "=" OP "(" [operand {"," operand}] ")" [attributes] ":" type [place]
             | VALUE "=" "const" (list | HASH) ":" type
    operand  = VALUE | "-" | "[" [VALUE {"," VALUE}] "]"
    return   = "return" [STRING "="] VALUE {"," [STRING "="] VALUE}
    type     = DTYPE "[" [INT {"," INT}] "]" ["q" "(" numbers "," numbers {"," more} ")"]
    more     = "axis" "=" INT | "missing" "=" INT
    arena    = "arena" INT "align" INT
    place    = ["at" STRING INT "strides" list] ["scratch" INT]
    VALUE    = "%" (IDENTIFIER | STRING | INT) ["#" INT]

`%3` is a nameless value; `%y#2` is the second value that is called y. An input that is a state
comes from an output of the run before, and begins with the list, or with its one number everywhere.
Absent operands are "-"; at the end they are left out, as are flags that are not set.
Long arrays print as content hashes; `parse` finds them in the constants it is given, or among those
still alive.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irc.errors import ParseError
from irc.graph import Graph
from irc.parser import parse
from irc.printer import constants, print_graph


def write(graph: Graph, path: str | Path) -> None:
    """Write `path` and, next to it, the `.npz` of its long constants."""
    path = Path(path)
    path.write_text(print_graph(graph) + "\n")
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **constants(graph))


def read(path: str | Path) -> Graph:
    """Read what `write` wrote; raises `ParseError` naming the line at fault."""
    path = Path(path)
    sidecar = path.with_suffix(".npz")
    try:
        text = path.read_text()
        arrays = dict(np.load(sidecar, allow_pickle=False)) if sidecar.exists() else {}
    except (OSError, ValueError) as error:
        raise ParseError(f"can't read {path}: {error}") from None
    return parse(text, arrays)
