"""The program in the worker process: it reads models, solves them and writes answers until its input ends.

Started by `verifier.solvers.worker` as `python -m verifier.solvers.worker_process SOLVER BYTES FOLDER`, in a process
group of its own. When its input ends the parent is done or dead: the folder goes, and the group is killed at once, in
the middle of a solve too, with all programs that the solver started.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import threading
from typing import Any, BinaryIO

import numpy as np

from verifier.solvers import find_solver
from verifier.solvers.base import Solution, Solver, Termination
from verifier.solvers.messages import Frame, answer_frame, read_frame, read_request, write_frame


def main(arguments: list[str]) -> None:
    """Serve a solver, by name, within so many bytes of address space (0: any number), with a folder for its files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries and programs that print must not get between the answers, nor read the requests.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 a device, by its number
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    limit_memory(int(arguments[1]))
    solver = find_solver(arguments[0])
    waiting: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting, arguments[2]), daemon=True).start()
    write_frame(answers, ({}, {"ready": True}))
    while True:
        arrays, values = waiting.get()
        solution = solve(solver, arrays, values)
        write_frame(answers, answer_frame(solution, values["number"]))


def limit_memory(most_bytes: int) -> None:
    """Let this process and its children have at most so many bytes of address space, where the system can do that."""
    if most_bytes <= 0 or sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def solve(solver: Solver, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> Solution:
    """Return the solver's answer to a request; what goes wrong inside it is STOPPED with the reason."""
    try:
        model, seconds, settings = read_request((arrays, values))
        return solver.solve(model, seconds, settings)
    except MemoryError:
        return Solution(Termination.STOPPED, stats={"status": "out of memory"})
    except Exception as error:  # a library's own error classes are not known here
        return Solution(Termination.STOPPED, stats={"status": f"{type(error).__name__}: {error}"})


def _listen(requests: BinaryIO, waiting: queue.SimpleQueue[Frame], folder: str) -> None:
    """Hand requests on; when they end, or are none, end this process and what it started."""
    try:
        while True:
            waiting.put(read_frame(requests))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if os.name == "posix" and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
