"""Kernels timed one by one."""

import pytest

from irc.backends.llvm.host.profile import profile
from irc.backends.llvm.target import host
from irc.errors import CompileError
from irc.ops.core import Kernel
from tests.backends.llvm.nets import random_inputs, small_net


@pytest.mark.skipif(not host().is_x86, reason="reads the clock of x86")
def test_every_kernel_has_its_time_and_products() -> None:
    graph = small_net(24)
    times = profile(graph, random_inputs(graph), rounds=5)
    kernels = [v for v in graph.order if isinstance(v, Kernel)]
    assert list(dict.fromkeys(t.layer for t in times)) == [v.name for v in kernels]
    assert all(0 < t.milliseconds < 1000 for t in times)
    convolution = 14 * 13 * 24 * 9 * 16
    depthwise = 7 * 7 * 24 * 9
    assert sorted(t.macs for t in times if t.macs)[-1] == convolution
    assert depthwise in [t.macs for t in times]
    assert all(t.gmacs == t.macs / t.milliseconds / 1e6 for t in times)
    weights, pixels = 16 * 9 * 24, 14 * 13 * (16 + 24)
    (moved,) = {t.nbytes for t in times if t.macs == convolution}
    assert weights + pixels <= moved <= weights + 3 * pixels + 4096


@pytest.mark.skipif(not host().is_x86, reason="reads the clock of x86")
def test_a_lower_level_is_timed_and_a_foreign_cpu_refused() -> None:
    graph = small_net(8)
    times = profile(graph, random_inputs(graph), rounds=2, target="x86-64-v2")
    assert all(t.milliseconds > 0 for t in times)
    with pytest.raises(CompileError, match="aarch64 can't run in this process"):
        profile(graph, random_inputs(graph), target="aarch64")


@pytest.mark.skipif(not host().is_x86, reason="reads the clock of x86")
def test_kernels_are_timed_with_threads() -> None:
    graph = small_net(24)
    times = profile(graph, random_inputs(graph), rounds=3, threads=2)
    alone = profile(graph, random_inputs(graph), rounds=3)
    assert [(t.layer, t.kernel) for t in times] == [(t.layer, t.kernel) for t in alone]
    assert all(0 < t.milliseconds < 1000 for t in times)
