import os
import platform
import shutil

import pytest

from bench import machine

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Some CPU @ 2.0GHz
stepping\t: 8
flags\t\t: fpu avx2 avx512_vnni

processor\t: 1
model name\t: Another
"""


def test_fields_are_those_of_the_first_processor() -> None:
    fields = machine.cpu_fields(CPUINFO)
    assert fields["model name"] == "Some CPU @ 2.0GHz"
    assert fields["flags"].split() == ["fpu", "avx2", "avx512_vnni"]


def test_peaks_are_parsed() -> None:
    assert machine.parse_rates("maddubs_256 97.5\ntdpbusd 3000\n") == {
        "maddubs_256": 97.5,
        "tdpbusd": 3000.0,
    }


def test_versions_leave_out_what_is_absent() -> None:
    found = machine.versions(("numpy", "surely-not-installed-anywhere"))
    assert list(found) == ["numpy"]


def test_absent_compiler_is_a_reason_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    described = machine.describe()
    assert described.peaks == {}
    assert "no C compiler" in described.peaks_missing


def test_other_architectures_have_no_peak_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="riscv64"):
        machine.measure_peaks()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the loops are x86-64's")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_peaks_keep_the_order_that_the_instructions_impose() -> None:
    peaks = machine.measure_peaks()
    assert all(rate > 0 for rate in peaks.values())
    if "maddubs_256" in peaks:
        # 8-bit products come four to a lane of 32 bits, 16-bit ones two, floats one.
        assert peaks["maddubs_256"] > peaks["fma_256"]
    if "dpbusd_256" in peaks:
        assert peaks["dpbusd_256"] > peaks["maddubs_256"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_more_memory_is_read_no_faster() -> None:
    streams = machine.measure_streams()
    assert list(streams) == ["256KiB", "64MiB"]
    assert streams["256KiB"] > 0.8 * streams["64MiB"] > 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_pinning_takes_that_many_cores() -> None:
    before = os.sched_getaffinity(0)
    try:
        chosen = machine.pin(1)
        assert os.sched_getaffinity(0) == set(chosen)
        assert len(chosen) == 1
    finally:
        os.sched_setaffinity(0, before)
