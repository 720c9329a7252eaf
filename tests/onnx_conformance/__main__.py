"""`python -m tests.onnx_conformance [FILE]`: judge all cases, print the table, store it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx

from tests.onnx_conformance.cases import STORED, light_cases, node_cases, stored_cases
from tests.onnx_conformance.table import Table, document, listing, summary


def main() -> int:
    """Exit status 1 where a case failed."""
    warnings.simplefilter("ignore")
    table = Table()
    table.judge(node_cases(), integers=True)
    for kind in STORED:
        table.judge(stored_cases(kind), integers=False)
    table.judge(light_cases(), integers=False)
    print(listing(table), summary(table), sep="\n\n")
    for case, verdict in table.failures:
        print(f"FAILED {case.name}: {verdict.reason}")
    if sys.argv[1:]:
        text = document(table, {"onnx": onnx.__version__})
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    return 1 if table.failures else 0


if __name__ == "__main__":
    sys.exit(main())
