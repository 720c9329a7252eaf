"""States in C: a program that feeds them back gives what Python gives."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import irc
from irc.edge import to_integers
from tests.irc.test_streams import average, shifted, steps

PROGRAM = """
#include <stdio.h>
#include "net.h"
static uint8_t workspace[NET_WORKSPACE_BYTES] __attribute__((aligned(NET_WORKSPACE_ALIGN)));
static uint8_t x[NET_INPUT_X_SIZE];
static NET_OUTPUT_Y_TYPE y[NET_OUTPUT_Y_SIZE];
static NET_INPUT_{STATE}_TYPE state[2][NET_INPUT_{STATE}_SIZE];
int main(void) {{
  int now = 0;
  if (NET_STATES != 1 || net_reset(state[0]) != NET_OK || net_reset(0) != NET_ERROR_NULL) return 1;
  while (fread(x, sizeof x, 1, stdin) == 1) {{
    if (net_run(x, state[now], y, state[1 - now], workspace) != NET_OK) return 2;
    now = 1 - now;
    fwrite(y, sizeof y, 1, stdout);
  }}
  fwrite(state[now], sizeof state[now], 1, stdout);
  return 0;
}}
"""


@pytest.mark.parametrize("kind", ["uniform", "numbers", "line"])
def test_a_program_feeds_states_back(tmp_path: Path, kind: str) -> None:
    initial = np.array([0.5, -1, 0, 1.25], np.float32) if kind == "numbers" else 0.75
    graph = shifted() if kind == "line" else average(initial)
    width = graph.inputs[0].shape[1]
    model = irc.compile(irc.quantize(graph, steps(40, width)))
    model.save(tmp_path, "net", emit=("a",))
    (state,) = model.states
    (tmp_path / "main.c").write_text(PROGRAM.format(STATE=state.input.upper()))
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "main.c", "libnet.a", "-o", "main"], cwd=tmp_path, check=True)

    types = {"x": model.graph.input_types["x"]}
    fed = [to_integers(types, f)[0] for f in steps(30, width, seed=1)]
    given = b"".join(f["x"].tobytes() for f in fed)
    found = subprocess.run([tmp_path / "main"], input=given, capture_output=True, check=True).stdout
    stream = irc.Stream(model.graph)
    wanted = b"".join(stream(f)["y"].tobytes() for f in fed)
    assert found == wanted + stream.states[state.input].tobytes()
