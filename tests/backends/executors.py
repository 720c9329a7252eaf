"""Executors for `NAME_run_parallel`, in Python: what a host may do with tasks."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable

TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
PARALLEL_FOR = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
)


class Executor(ctypes.Structure):
    """The `NAME_executor` of a library's header."""

    _fields_ = (
        ("context", ctypes.c_void_p),
        ("parallel_for", PARALLEL_FOR),
        ("threads", ctypes.c_int),
    )


def shuffled(threads: int, seed: int = 0) -> Executor:
    """Tasks on the caller's own thread, in any order."""
    order = random.Random(seed)

    def run(tasks: int, task: Callable[[int], None]) -> None:
        for index in order.sample(range(tasks), tasks):
            task(index)

    return _executor(threads, run)


def threaded(threads: int) -> Executor:
    """Each task on a thread of its own, all at once."""

    def run(tasks: int, task: Callable[[int], None]) -> None:
        started = [threading.Thread(target=task, args=(i,)) for i in range(tasks)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    return _executor(threads, run)


def _executor(threads: int, run: Callable[[int, Callable[[int], None]], None]) -> Executor:
    def parallel_for(_: int, tasks: int, address: int, arg: int) -> None:
        assert 1 <= tasks <= threads
        task = TASK(address)
        run(tasks, lambda index: task(arg, index))

    return Executor(None, PARALLEL_FOR(parallel_for), threads)
