"""The threads inside of a library: `templates/pool.ll.j2`, filled in.

It needs POSIX threads and nothing else from outside; what it writes is its own state. Why it is
made like this stands in docs/decisions/013-threads.md.
"""

from __future__ import annotations

from typing import Any

import jinja2

from irc.backends.llvm.module.header import templates
from irc.backends.llvm.target import Target
from irc.errors import CompileError

MOST_THREADS = 256
LOOKS = 400
"""At a word before a thread lets others have its core: some ten microseconds, which most waits for
the other parts of a kernel do not take."""
YIELDS = 2000
"""Before it goes to sleep: about a millisecond, if nobody wants the core. To be woken takes tens of
microseconds, so in a loop of runs it should not sleep between two."""
_PAUSES = {"x86_64": "llvm.x86.sse2.pause()", "aarch64": "llvm.aarch64.hint(i32 1)"}


def check_threads(threads: int, target: Target) -> None:
    """Raise `CompileError` where a library for `target` can't have so many threads of its own."""
    if not 1 <= threads <= MOST_THREADS:
        raise CompileError(f"threads must be from 1 to {MOST_THREADS}, not {threads}")
    if threads > 1 and target.system not in ("linux", "macosx"):
        raise CompileError(
            f"threads={threads}: target {target.name} has no POSIX threads; leave threads out, and"
            " give NAME_run_parallel an executor of yours"
        )


def pool_text(name: str, threads: int, target: Target, body: Any, parallel: Any) -> str:
    """The pool as LLVM text, for a module that defines the functions `body` and `parallel`; it
    defines `NAME_pool_run` to be called like the body."""
    template: jinja2.Template = templates.get_template("pool.ll.j2")
    return template.render(
        name=name,
        n=f"{name}_pool",
        workers=threads - 1,
        word=target.pointer_bits,
        looks=LOOKS,
        yields=YIELDS,
        pause=_PAUSES.get(target.arch, ""),
        body=body.name,
        parallel=parallel.name,
        parameters=", ".join(f"ptr %a{i}" for i in range(len(body.args))),
    )
