"""Instances of VNN-COMP families, and one of them decided in a process of its own.

What counts is wall time from the start of the process to its end, with all that Python and torch load. The process is
interrupted at the limit and killed soon after; a verdict that comes later is none. CPU seconds and the peak of memory
are those that the operating system counts for the process and what it has waited for.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Seconds of the limit that are left for start and end, at most half of it, so that the process ends by itself.
RESERVE = 1.5
# Seconds from the interruption to the end by force.
GRACE = 8.0
VERDICTS = ("unsat", "sat", "unknown", "timeout", "error")


@dataclasses.dataclass(frozen=True)
class Instance:
    """A network and a property of a family, with the expected verdict and the seconds of the fastest known tool."""

    folder: Path
    onnx: str
    vnnlib: str
    expected: str
    fastest: float | None

    @property
    def family(self) -> str:
        """The name of the family."""
        return self.folder.name

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from every other."""
        return self.family, self.onnx, self.vnnlib


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every instance is asked with.

    command: the words that start the verifier. limit: seconds of wall time. threads: of each process.
    """

    command: tuple[str, ...]
    method: str = "auto"
    limit: float = 60.0
    threads: int = 1
    certificates: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """What is known of an instance after a run: a line of the table of results.

    wall, cpu: seconds of the whole process; solving: those that the verifier counts for the property. peak: MiB. load:
    processes that waited for the machine's cores when it began. by, remark: what decided it, or why it is open. spent:
    the seconds of each stage.
    leaves, bytes, checking, check: of what the run keeps to be checked; `check` is ok, refused, none (a proof without a
    certificate), failed (the remark says how) or empty.
    """

    family: str
    onnx: str
    vnnlib: str
    expected: str
    verdict: str
    wall: float
    cpu: float
    peak: float
    solving: float | None
    load: float
    by: str
    remark: str
    spent: str
    leaves: int | None
    bytes: int | None
    checking: float | None
    check: str
    asked: str
    limit: float
    threads: int
    certificates: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """The instance."""
        return self.family, self.onnx, self.vnnlib

    @property
    def is_decided(self) -> bool:
        """Whether there is a verdict within the limit."""
        return self.verdict in ("sat", "unsat")

    @property
    def is_wrong(self) -> bool:
        """Whether the verdict contradicts the expected one, or its certificate does not hold."""
        return {self.verdict, self.expected} == {"sat", "unsat"} or self.check == "refused"


def read_family(folder: Path) -> list[Instance]:
    """Return the instances of a folder in the order of instances.csv; ValueError where a file is not there."""
    for name in ("instances.csv", "expected.csv"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is not there; a family is a folder with instances.csv and expected.csv")
    with (folder / "expected.csv").open(newline="") as file:
        known = {(row["onnx"], row["vnnlib"]): row for row in csv.DictReader(file)}
    with (folder / "instances.csv").open(newline="") as file:
        pairs = [(row[0].strip(), row[1].strip()) for row in csv.reader(file) if row]
    found = []
    for onnx, vnnlib in pairs:
        row = known.get((onnx, vnnlib), {})
        seconds = row.get("fastest_tool_s")
        found.append(
            Instance(folder, onnx, vnnlib, row.get("expected", "unknown"), float(seconds) if seconds else None)
        )
    return found


class Interrupted(Exception):
    """The run was stopped while this instance was worked on."""


def decided(instance: Instance, settings: Settings, stop: threading.Event) -> Row:
    """Return what a fresh process says of an instance; Interrupted once `stop` is set."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="vnncomp-") as name:
        scratch = Path(name)
        run = scratch / "run"
        command = [
            *settings.command, "verify", str(_present(instance.folder / instance.onnx)),
            str(_present(instance.folder / instance.vnnlib)), "--method", settings.method, "--time-limit",
            str(max(settings.limit - RESERVE, settings.limit / 2)), "--out", str(run), "--json",
            *(["--certificates"] if settings.certificates else []),
        ]  # fmt: skip
        used = _run(command, scratch, settings, stop)
        (scratch / "stdout").replace(scratch / "answer")
        verdict, solving, by, remark, spent = _answer(scratch / "answer", used, settings.limit)
        if verdict == "timeout":
            remark = remark or _last_reason(run) or "ended by force"
        blank = Row(
            *instance.key, instance.expected, verdict, round(used.wall, 3), round(used.cpu, 3), round(used.peak, 1),
            solving, round(load, 2), by, remark, spent, None, None, None, "", settings.method, settings.limit,
            settings.threads, settings.certificates,
        )  # fmt: skip
        if not settings.certificates or verdict not in ("sat", "unsat"):
            return blank
        return dataclasses.replace(blank, **_checked(run, scratch, settings, stop))


@dataclasses.dataclass(frozen=True)
class _Used:
    """What a process has used, how it ended, and what it wrote to standard error last."""

    wall: float
    cpu: float
    peak: float
    status: int
    complaint: str


def _run(command: list[str], scratch: Path, settings: Settings, stop: threading.Event) -> _Used:
    """Run a command, its standard output in `scratch/stdout`; end it at the limit."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads)}
    # An installed package has its compiled code, which takes two seconds to make.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (scratch / "stdout").open("wb") as out, (scratch / "stderr").open("wb") as err:
        began = time.perf_counter()
        # A session of its own: an interruption of this program is passed on by it alone.
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True)
        ends = ((settings.limit, signal.SIGINT), (settings.limit + GRACE, signal.SIGKILL))
        usage = _waited(process, began, ends, stop)
        wall = time.perf_counter() - began
    lines = (scratch / "stderr").read_text(errors="replace").strip().splitlines()
    complaint = lines[-1] if lines else ""
    return _Used(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode, complaint)


def _waited(process: Any, began: float, ends: Any, stop: threading.Event) -> Any:
    """Return the resources that a process has used, once it has ended; `ends`: (seconds, signal) to end it with."""
    waiting = list(ends)
    while True:
        number, status, usage = os.wait4(process.pid, os.WNOHANG)
        if number:
            # What Popen would have learned from its own wait.
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        if stop.is_set():
            _signal(process.pid, signal.SIGKILL)
            os.wait4(process.pid, 0)
            process.returncode = -signal.SIGKILL
            raise Interrupted
        if waiting and time.perf_counter() - began > waiting[0][0]:
            _signal(process.pid, waiting.pop(0)[1])
        time.sleep(0.01)


def _signal(process: int, number: int) -> None:
    """Send a signal to a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, number)


def _answer(file: Path, used: _Used, limit: float) -> tuple[str, float | None, str, str, str]:
    """Return (verdict, seconds of solving, what decided, remark, what was spent) of a process that has ended."""
    try:
        (found,) = json.loads(file.read_text())["properties"]
        verdict, solving, by = found["verdict"], round(float(found["seconds"]), 3), str(found["method"])
        remark = str(found["reason"] or "")
        spent = ", ".join(f"{total['stage']} {total['seconds']:.2f}" for total in found.get("spent", ()))
    except (ValueError, KeyError, TypeError):
        if used.wall > limit:
            return "timeout", None, "", "", ""
        return "error", None, "", f"status {used.status}: {used.complaint}"[:300], ""
    if used.wall > limit:
        late = f"{verdict} after the limit" if verdict in ("sat", "unsat") else remark
        return "timeout", solving, "", late, spent
    return (verdict if verdict in VERDICTS else "error"), solving, by, remark, spent


def _last_reason(run: Path) -> str:
    """Return why the last record of a run that was interrupted is open, or its verdict; empty where there is none."""
    try:
        record = json.loads((run / "records.jsonl").read_text().splitlines()[-1])
        return str(record["reason"] or f"{record['verdict']}, and then the limit")
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _checked(run: Path, scratch: Path, settings: Settings, stop: threading.Event) -> dict[str, Any]:
    """Return what `check` says of a run, the leaves and bytes of its certificates, and the seconds without start-up."""
    sizes = [file.stat().st_size for file in (run / "certificates").glob("*")]
    checker = dataclasses.replace(settings, limit=max(60.0, settings.limit))
    used = _run([*settings.command, "check", str(run), "--allow-uncertified", "--json"], scratch, checker, stop)
    try:
        found = json.loads((scratch / "stdout").read_text())
        seconds, leaves = round(float(found["seconds"]), 3), int(found["leaves"])
        word = "refused" if found["refused"] else "none" if found["without"] or found["uncertified"] else "ok"
        remark = {"remark": str(found["refused"])[:300]} if found["refused"] else {}
    except (ValueError, KeyError, TypeError):
        word, seconds, leaves, remark = "failed", None, None, {"remark": f"check: {used.complaint}"[:300]}
    return {"check": word, "checking": seconds, "leaves": leaves, "bytes": sum(sizes), **remark}


def _present(path: Path) -> Path:
    """Return a file as it is there, packed or not."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def words(command: str) -> tuple[str, ...]:
    """Return the words of a command."""
    return tuple(shlex.split(command))


def every(instances: list[Instance], step: int) -> Iterator[Instance]:
    """Yield every step-th instance of each family."""
    numbers: dict[str, int] = {}
    for instance in instances:
        number = numbers[instance.family] = numbers.get(instance.family, -1) + 1
        if number % step == 0:
            yield instance
