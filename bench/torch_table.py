"""The rows of `bench.torch_zoo`: kept as JSON, measured once for each state of the code, written
into a document between markers."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from statistics import median

from bench.cache import written_whole
from bench.document import ABSENT, brief, replaced
from bench.report import markdown_table

SOURCES_OF_CODE = ("irc", "frontends", "passes", "backends")
"""The folders whose text a row depends on."""


@dataclass(frozen=True)
class Row:
    """What became of one architecture; None for a step that was not reached."""

    name: str
    nodes: int | None = None
    """After import."""
    error: float | None = None
    """Largest difference of `irc.evaluate` from torch, relative to the largest output."""
    kernels: int | None = None
    same_bits: bool | None = None
    """Whether the library's outputs are those of the reference, to the last bit."""
    sqnr: float | None = None
    """Of the integer library against torch, dB over the samples."""
    peer: float | None = None
    """The same of onnxruntime's integers, where that was asked for."""
    failed: str = ""
    """The step that failed, and why."""
    state: str = ""
    """Of the code that was measured, see `code_state`."""


@cache
def code_state() -> str:
    """A digest of the code that import, quantize and compile consist of."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in SOURCES_OF_CODE:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass
class Table:
    """The rows of every source, in a file; rows that are there need not be measured again."""

    path: Path | None = None
    rows: dict[str, dict[str, Row]] | None = None

    def __post_init__(self) -> None:
        if self.rows is None:
            self.rows = {}
            if self.path is not None and self.path.exists():
                known = {f.name for f in fields(Row)}
                for source, rows in json.loads(self.path.read_text()).items():
                    made = (Row(**{k: v for k, v in r.items() if k in known}) for r in rows)
                    self.rows[source] = {row.name: row for row in made}

    def of(self, source: str) -> dict[str, Row]:
        """The rows of one source by name."""
        assert self.rows is not None
        return self.rows.setdefault(source, {})

    def measured(self, source: str, name: str, *, peer: bool, any_state: bool = False) -> bool:
        """Whether a row is there that this state of the code would give."""
        row = self.of(source).get(name)
        return (
            row is not None
            and (any_state or row.state == code_state())
            and (row.sqnr is not None or bool(row.failed))
            and (row.peer is not None or not peer or bool(row.failed))
        )

    def add(self, source: str, row: Row) -> None:
        """Take a row, and write the file anew; another process may have written other rows."""
        if self.path is not None and self.path.exists():
            for other, rows in (Table(self.path).rows or {}).items():
                for name, known in rows.items():
                    self.of(other)[name] = known
        self.of(source)[row.name] = row
        if self.path is not None:
            every = {s: [asdict(r) for r in rows.values()] for s, rows in (self.rows or {}).items()}
            with written_whole(self.path) as part:
                part.write_text(json.dumps(every, indent=1) + "\n")


def markdown(rows: Iterable[Row]) -> str:
    """A table, one architecture a line."""
    listed = list(rows)
    headings = ["architecture", "nodes", "evaluate", "kernels", "bits", "SQNR, dB", "onnxruntime",
                ""]  # fmt: skip
    return markdown_table(headings, [cells(row) for row in listed])


def cells(row: Row) -> list[str]:
    """A row as text."""
    return [
        row.name,
        ABSENT if row.nodes is None else str(row.nodes),
        ABSENT if row.error is None else f"{row.error:.0e}",
        ABSENT if row.kernels is None else str(row.kernels),
        ABSENT if row.same_bits is None else "same" if row.same_bits else "differ",
        ABSENT if row.sqnr is None else f"{row.sqnr:.1f}",
        "" if row.peer is None else f"{row.peer:.1f}",
        brief(" ".join(row.failed.split())) if row.failed else "",
    ]


def summary(rows: Sequence[Row]) -> str:
    """What the rows say together."""
    done = [row for row in rows if row.sqnr is not None]
    both = [row.sqnr - row.peer for row in done if row.sqnr is not None and row.peer is not None]
    worst = max((row.error for row in rows if row.error is not None), default=None)
    states = len({row.state for row in rows})
    said = [f"{len(done)} of {len(rows)} compiled to integers"]
    if worst is not None:
        said.append(f"the largest difference of `evaluate` from torch is {worst:.0e}")
    held = [row.same_bits for row in done if row.same_bits is not None]
    if held:
        said.append(f"the library's bits are those of the reference on {sum(held)} of {len(held)}")
    if both:
        ahead = sum(b > 0 for b in both)
        said.append(
            f"irc has the higher SQNR on {ahead} of {len(both)}, by {median(both):+.1f} dB in the"
            " median"
        )
    said.append("one state of the code" if states == 1 else f"{states} states of the code")
    return "; ".join(said) + "."


def write_document(
    path: Path, rows: Mapping[str, Sequence[Row]], titles: Mapping[str, str]
) -> None:
    """Write each source's table between its markers; what stands outside is left as it is."""
    text = path.read_text() if path.exists() else ""
    for source, listed in rows.items():
        if listed:
            content = f"### {titles[source]}\n\n{summary(listed)}\n\n{markdown(listed)}"
            text = replaced(text, source, content)
    with written_whole(path) as part:
        part.write_text(text)
