"""Programs in processes of their own that start in no time: forked by one that has loaded the libraries already.

For tests of what a process does with its descriptors, signals, limits and end. What loading does is no part of them:
at least one program of each kind is started plainly. Everything else is as of `python -c CODE ARGUMENTS`: the program
has its own descriptors, ends as an interpreter ends, and nothing of pytest is in it.
"""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
# What is loaded before a program begins; not onnxruntime, which starts a thread that a fork would lose with its locks.
LOADED = "import matplotlib.pyplot, numpy, onnx, torch, encoders, verifier.cli"
MOST = 1 << 20


@dataclass(frozen=True)
class Started:
    """A program that runs: its process, and the ends of the pipes that it writes to."""

    pid: int
    out: int
    error: int

    def has_ended(self) -> bool:
        """Return whether it has ended; what it wrote is there to be read."""
        (ended,) = _asked({"look": self.pid})
        return bool(ended)

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Read what it writes until it ends; return that, with its status as `subprocess` tells it."""
        with ThreadPoolExecutor(2) as readers:
            out, error = readers.map(_drained, (self.out, self.error))
        (status,) = _asked({"wait": self.pid})
        return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(status), out, error)


def start(code: str, arguments: Sequence[object] = (), cwd: Path | None = None, stdout: int | None = None) -> Started:
    """Start a program; stdout: a descriptor that it gets in place of a pipe."""
    ends = [os.pipe(), os.pipe()]
    out = ends[0][1] if stdout is None else stdout
    request = {"code": code, "arguments": [*map(str, arguments)], "cwd": str(cwd or Path.cwd())}
    (pid,) = _asked(request, out, ends[1][1])
    for _, writer in ends:
        os.close(writer)
    return Started(pid, ends[0][0], ends[1][0])


def run(
    code: str, arguments: Sequence[object] = (), cwd: Path | None = None, stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return start(code, arguments, cwd, stdout).ended()


def _drained(end: int) -> str:
    with open(end, encoding="utf-8") as file:
        return file.read()


@functools.cache
def _server() -> socket.socket:
    """Return the line to a process that forks, and ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment,
        cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


def _asked(request: dict, *descriptors: int) -> list[int]:
    line = _server()
    socket.send_fds(line, [json.dumps(request).encode()], descriptors)
    return json.loads(line.recv(MOST))


def _serve(line: socket.socket) -> None:
    """Fork for every request; a program's process leaves this function by its end."""
    while True:
        content, descriptors, _, _ = socket.recv_fds(line, MOST, 2)
        if not content:
            return
        request = json.loads(content)
        if "look" in request:
            found = os.waitid(os.P_PID, request["look"], os.WEXITED | os.WNOHANG | os.WNOWAIT)
            line.send(json.dumps([int(found is not None)]).encode())
        elif "wait" in request:
            line.send(json.dumps([os.waitpid(request["wait"], 0)[1]]).encode())
        elif pid := os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            line.send(json.dumps([pid]).encode())
        else:
            line.close()
            _become(request, *descriptors)
            return


def _become(request: dict, out: int, error: int) -> None:
    """Be the program of a request."""
    for own, given in ((1, out), (2, error)):
        os.dup2(given, own)
        os.close(given)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # A process started in the background inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    sys.argv = ["-c", *request["arguments"]]
    sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(request["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)


if __name__ == "__main__":
    exec(LOADED)
    _serve(socket.socket(fileno=int(sys.argv[1])))
