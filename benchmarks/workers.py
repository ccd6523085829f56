"""Workers of one machine and merged shards: speed and memory against one worker, load, and kills at random times.

    python benchmarks/workers.py speed [--method crown exact] [--inputs 2000] [--workers 2]   # quiet machine
    python benchmarks/workers.py load [--inputs 100000]
    python benchmarks/workers.py kills [--times 100]

`speed` certifies MNIST test inputs by each method with one worker and with several, alternating, and compares records,
seconds and the memory of the largest worker. `load` writes, resumes, merges and reads runs of cheap records of several
sizes, whose times must grow as the inputs do. `kills` ends a worker or the command itself (SIGKILL) at random times,
starts it again until it is done, and compares its records with those of a run that nobody disturbed.
"""

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

PASSING = ("seconds", "spent", "versions")


def records_of(folder: Path) -> list[dict]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in PASSING} for line in lines]


def children_of(pid: int) -> list[int]:
    """Return the worker processes of a command: its children, and those of the wrapper that `uv` or a shell is."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident(pid: int) -> float:
    """Return the most memory that a process has held, in MiB; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


def processor(pid: int) -> float:
    """Return the processor seconds of a process; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def network(folder: Path, sizes: tuple[int, ...]) -> tuple[Path, Path]:
    """Write a random network and inputs near a few of its centres; return both files."""
    from encoders import write_network
    from tests.networks.chains import random_relu_network

    made = random_relu_network(0, sizes)
    write_network(made, folder / "model.safetensors")
    return folder / "model.safetensors", folder / "data.npz"


def timed(command: list[str]) -> tuple[float, float, float, float]:
    """Return (seconds, processor seconds, MiB of the largest process, longest path) of a command that must end well.

    longest path: processor seconds of the command itself and of its busiest worker, one after the other: what it takes
    where every process has a processor of its own, but for waiting. It can be compared on a busy machine, too.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started, peak, own, spent = time.perf_counter(), 0.0, 0.0, dict[int, float]()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        workers = children_of(process.pid)
        own = max(own, processor(process.pid))
        spent |= {pid: max(spent.get(pid, 0.0), processor(pid)) for pid in workers}
        peak = max([peak, resident(process.pid) if not workers else 0.0, *map(resident, workers)])
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, total, peak, own + max(spent.values(), default=0.0)


def speed(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = folder / "mnist.safetensors" if asked.model is None else asked.model
        if asked.model is None:
            shared = ["--data", "mnist", "--data-dir", str(asked.data_dir), "--out", str(model), "--epochs", "1"]
            subprocess.run([sys.executable, "-m", "verifier", "train", "relu", *shared], check=True, stdout=sys.stderr)
        print("method  workers  seconds  processor  longest path  MiB of a worker  ratio  of paths  same records")
        for method in asked.method:
            first, path = 0.0, 0.0
            for count in (1, asked.workers):
                out = folder / f"{method}-{count}"
                command = [
                    sys.executable, "-m", "verifier", "certify", str(model), "--data", "mnist", "--data-dir",
                    str(asked.data_dir), "--epsilon", "0.01", "0.02", "--method", method, "--limit", str(asked.inputs),
                    "--time-limit", "inf", "--workers", str(count), "--out", str(out), "--json",
                ]  # fmt: skip
                seconds, total, peak, longest = timed(command)
                first, path = first or seconds, path or longest
                same = records_of(out) == records_of(folder / f"{method}-1")
                print(
                    f"{method:7} {count:7} {seconds:8.1f} {total:10.1f} {longest:13.1f} {peak:16.0f} "
                    f"{first / seconds:6.2f} {path / longest:9.2f}  {same}",
                    flush=True,
                )


def load(asked: argparse.Namespace) -> None:
    from verifier import certify, merge
    from verifier.runs.folder import open_run, read_run

    print("inputs  append  resume  read  merge of 100 shards  finish  MiB")
    sizes = [asked.inputs // 10, asked.inputs]
    for inputs in sizes:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            model, data = network(folder, (4, 8, 3))
            x = torch.rand(asked.seeds, 4, generator=torch.Generator().manual_seed(0)).numpy()
            np.savez(data, x=x, y=np.zeros(len(x), dtype=np.int64))
            certify(model, data, [0.01], method="interval", out=folder / "small")
            small = read_run(folder / "small")
            configuration = {k: v for k, v in small.configuration.items() if k not in ("origin", "schema")}
            patterns = [r for r in small.lines.records.values() if r.claimed_distance is None]
            results = {k: v for k, v in (small.results or {}).items()}  # type: ignore[union-attr]

            def made(index: int, patterns: list = patterns) -> object:
                pattern = patterns[index % len(patterns)]
                return dataclasses.replace(pattern, head=dataclasses.replace(pattern.head, index=index))

            seconds = []
            began = time.process_time()
            with open_run(folder / "run", configuration) as run:
                for start in range(0, inputs, 64):
                    run.append([made(i) for i in range(start, min(inputs, start + 64))], {})
            seconds.append(time.process_time() - began)
            began = time.process_time()
            with open_run(folder / "run", configuration) as run:
                seconds.append(time.process_time() - began)
                began = time.process_time()
                run.finish({**results, "offset": 0, "inputs": inputs})
                finish = time.process_time() - began
            began = time.process_time()
            read_run(folder / "run")
            seconds.append(time.process_time() - began)
            shards = []
            for number in range(100):
                part = range(inputs * number // 100, inputs * (number + 1) // 100)
                shards.append(folder / f"shard-{number}")
                with open_run(shards[-1], configuration) as run:
                    run.append([made(i) for i in part], {})
                    run.finish({**results, "offset": part.start, "inputs": len(part)})
            began = time.process_time()
            merge(shards, folder / "merged")
            seconds.append(time.process_time() - began)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{inputs:6}", *(f"{each:7.2f}" for each in [*seconds, finish]), f"{peak:7.0f}", flush=True)


class Forked:
    """The command in a process that is forked from this one, which has the libraries, and so are its workers.

    What is killed is at work, not loading: of spawned processes that end after a few seconds most never begin. All but
    the start is the command's own.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                nowhere = os.open(os.devnull, os.O_RDWR)
                for descriptor in (1, 2):
                    os.dup2(nowhere, descriptor)
                status = _command(arguments)
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self) -> int:
        found = self._waited(0)
        assert found is not None
        return found

    def _waited(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _command(arguments: list[str]) -> int:
    from verifier.cli import main
    from verifier.commands import workers

    inner, context = workers.serve, multiprocessing.get_context("fork")

    def serve(connection: Any, *others: Any) -> None:
        # A spawned process has no other descriptor: not the lock of the run, nor the other ends of pipes.
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            if int(name) > 2 and int(name) != connection.fileno():
                with contextlib.suppress(OSError):
                    os.close(int(name))
        inner(connection, *others)

    workers.serve = serve
    multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]
    return main(arguments)


def kills(asked: argparse.Namespace) -> None:
    import verifier.commands.certify  # noqa: F401 what is forked has it

    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, data = network(folder, (8, 16, 3))
        x = torch.rand(asked.inputs, 8, generator=torch.Generator().manual_seed(0))
        np.savez(data, x=x.numpy(), y=np.zeros(len(x), dtype=np.int64))
        command = [
            "certify", str(model), "--data", str(data), "--epsilon", "0.01", "0.05", "--method", asked.method,
            "--workers", str(asked.workers), "--json", "--out",
        ]  # fmt: skip
        began = time.perf_counter()
        assert Forked([*command, str(folder / "calm")]).wait() == 0
        print(f"undisturbed {time.perf_counter() - began:.1f} s", flush=True)
        calm, killed, runs = records_of(folder / "calm"), {"worker": 0, "parent": 0}, 0
        while sum(killed.values()) < asked.times:
            out, written = folder / f"run-{runs}", list[int]()
            while True:
                process = Forked([*command, str(out)])
                while process.poll() is None and sum(killed.values()) < asked.times:
                    time.sleep(chance.uniform(0.0, asked.pause))
                    kind = "parent" if chance.random() < asked.parents else "worker"
                    targets = [process.pid] if kind == "parent" else children_of(process.pid)[1:]
                    if targets and process.poll() is None:
                        try:
                            os.kill(chance.choice(targets), signal.SIGKILL)
                        except ProcessLookupError:
                            continue
                        killed[kind] += 1
                        lines = out / "records.jsonl"
                        count = lines.read_bytes().count(b"\n") if lines.exists() else 0
                        written.append(count)
                if process.wait() == 0:
                    break
            found = records_of(out)
            open_by_kills = [r for r in found if "its process" in (r.get("reason") or "")]
            if len(open_by_kills) and found != calm:
                # Killed twice at the same batch and once alone: the same command works on them again.
                assert Forked([*command, str(out)]).wait() == 0
                found = records_of(out)
            runs += 1
            print(
                f"run {runs}: {killed}, at {written} records, {len(open_by_kills)} left open, same records "
                f"{found == calm}",
                flush=True,
            )
            if found != calm:
                raise SystemExit("records differ")
            shutil.rmtree(out)


def main() -> None:
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(required=True)
    for name, run in (("speed", speed), ("load", load), ("kills", kills)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--workers", type=int, default=2)
        default = {"speed": 2000, "load": 100_000, "kills": 640}[name]
        command.add_argument("--inputs", type=int, default=default)
        if name == "speed":
            command.add_argument("--method", nargs="+", default=["crown", "exact"])
            command.add_argument("--model", type=Path, help="default: trained for one epoch")
            command.add_argument("--data-dir", type=Path, required=True)
        if name == "load":
            command.add_argument("--seeds", type=int, default=64)
        if name == "kills":
            command.add_argument("--method", default="crown")
            command.add_argument("--times", type=int, default=100)
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--pause", type=float, default=2.0, help="most seconds between two kills")
            command.add_argument("--parents", type=float, default=0.2, help="share of kills of the command itself")
    asked = whole.parse_args()
    asked.run(asked)


if __name__ == "__main__":
    main()
