"""The table of what is supported, operator by operator, and `docs/onnx-support.md`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx

import irc
from irc.driver import integerize
from irc.errors import IRCError
from irc.frontends.onnx.ops import HANDLERS
from irc.frontends.onnx.structure import OLDEST_OPSET
from tests.onnx_conformance.cases import Case
from tests.onnx_conformance.verdict import (
    CONSTANT,
    FAILED,
    FOLDED,
    PASSED,
    REFUSED,
    Verdict,
    judge,
    weights_fixed,
)

STATUSES = (PASSED, CONSTANT, FOLDED, REFUSED, FAILED)


@dataclass
class Row:
    """What became of the cases of one operator."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    integers: Counter[bool] = field(default_factory=Counter)
    why_float: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> int:
        """Cases that passed, constants or not."""
        return self.counts[PASSED] + self.counts[CONSTANT] + self.counts[FOLDED]

    def add(self, verdict: Verdict, integer: str | None) -> None:
        """Count a case; `integer` says why it has no integer form, "" if it has one."""
        self.counts[verdict.status] += 1
        if verdict.status == REFUSED:
            self.reasons[general(verdict.reason)] += 1
        if integer is not None:
            self.integers[not integer] += 1
            if integer:
                self.why_float[general(integer)] += 1


@dataclass
class Table:
    """All verdicts, by kind and by operator."""

    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    kinds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failures: list[tuple[Case, Verdict]] = field(default_factory=list)

    def judge(self, cases: Iterable[Case], *, integers: bool) -> None:
        """Judge cases; with `integers`, find out which can be quantized and compiled, too."""
        for case in cases:
            verdict = judge(case)
            self.kinds[case.kind][verdict.status] += 1
            if verdict.status == FAILED:
                self.failures.append((case, verdict))
            if case.kind == "node":
                self.rows[case.op].add(verdict, integer_form(case, verdict) if integers else None)


def integer_form(case: Case, verdict: Verdict) -> str | None:
    """"" if the graph becomes integers, calibrated on its case's own input, perhaps with all inputs
    but the first as constants; why not otherwise; None where the question makes no sense: nothing
    is computed from reals at run time."""
    found = _why_float(verdict)
    return _why_float(weights_fixed(case)) if found else found


def _why_float(verdict: Verdict) -> str | None:
    graph = verdict.graph
    if graph is None or not any(v.type.dtype.is_float for v in graph.inputs):
        return None
    if not any(v.type.dtype.is_float for v in graph.outputs):
        return None
    try:
        integerize(irc.quantize(graph, calibration=[dict(verdict.feeds)]))
    except IRCError as error:
        return str(error).splitlines()[:2][-1].strip()
    return ""


def general(reason: str) -> str:
    """A reason without what belongs to one case alone: names, and numbers."""
    plain = re.sub(r"%[\w.:/]+", "…", reason)
    plain = re.sub(r"^[\w.]+( '[^']*')?( \(output '[^']*'\))?: ", "", plain)
    plain = re.sub(r"^the model uses unsupported operators: ", "not supported: ", plain)
    plain = re.sub(r" \((opset|domain)[^)]*\)(: \d+ nodes?: .*)?", "", plain)
    plain = re.sub(r"'[^']*'", "…", plain)
    plain = re.sub(r"[fiub]\d+\[[\d,]*\]|\[[\d, ]*\]", "…", plain)
    return re.sub(r"\s+", " ", plain)[:110]


def summary(table: Table) -> str:
    """The counts by kind of case, as Markdown."""
    lines = ["| cases | " + " | ".join(STATUSES) + " |", "|---|" + "---:|" * len(STATUSES)]
    for kind, counts in table.kinds.items():
        cells = " | ".join(str(counts[s]) for s in STATUSES)
        lines.append(f"| {kind} ({counts.total()}) | {cells} |")
    return "\n".join(lines)


def listing(table: Table) -> str:
    """A line for each operator of the standard, as Markdown."""
    head = ["| operator | cases | passed | constants | folded | refused | integer | notes |"]
    head.append("|---|---:|---:|---:|---:|---:|---|---|")
    return "\n".join(head + [_line(op, table.rows[op]) for op in sorted(table.rows)])


def _line(op: str, row: Row) -> str:
    c = row.counts
    cells = [str(c.total()), *(str(c[s]) for s in (PASSED, CONSTANT, FOLDED, REFUSED))]
    return f"| {op} | {' | '.join(cells)} | {_integer(row)} | {_notes(row)} |"


def _integer(row: Row) -> str:
    yes, no = row.integers[True], row.integers[False]
    if not yes + no:
        return "–"
    return "yes" if not no else "no" if not yes else f"{yes} of {yes + no}"


def _notes(row: Row) -> str:
    found = [f"refused: {reason}" for reason, _ in row.reasons.most_common(2)]
    found += [f"float only: {reason}" for reason, _ in row.why_float.most_common(1)]
    return "; ".join(found).replace("|", "\\|")


def others(domain: str) -> str:
    """The operators of another domain that have a handler."""
    found = (op.rpartition(".") for op in HANDLERS)
    return ", ".join(sorted(op for of, _, op in found if of == domain))


def document(table: Table, tools: Mapping[str, str]) -> str:
    """The whole of `docs/onnx-support.md`."""
    versions = ", ".join(f"{name} {version}" for name, version in tools.items())
    return f"""# ONNX operators

Written by `make conformance` ({versions}, opsets {OLDEST_OPSET} to {newest()}); edits are lost.

ONNX's own test cases, imported and evaluated in float. *Constants*: passed once the inputs that
must be known when a model is compiled (shapes, axes, places of a scatter) are constants. *Folded*:
passed as a whole at import, all inputs being constants. *Refused*: an error that names the node and
says why. *Integer*: whether the case also becomes integers, calibrated on its own input, perhaps
with all inputs but the first as constants.

{summary(table)}

{listing(table)}

## Operators of other domains

Of onnxruntime's own, com.microsoft: {others("com.microsoft")}.

Of scikit-learn's, ai.onnx.ml: {others("ai.onnx.ml")}.

Of QONNX's, qonnx.custom_op.general or onnx.brevitas: {others("onnx.brevitas")}.
"""


def newest() -> int:
    """The newest opset that the installed onnx knows."""
    return int(onnx.defs.onnx_opset_version())
