"""Work that is stopped, by its clock, its memory or a person: open, with what is known, and taken up again."""

import contextlib
import math
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from encoders import Property, write_network
from encoders.questions import output_within
from tests.networks.chains import random_relu_network
from tests.runs.files import records_of
from verifier import certify, check, verify
from verifier.budget import GROWTH, Budget, Watch, guarded, memory_to_use, resident_bytes
from verifier.commands.interruption import interruption
from verifier.methods import METHODS
from verifier.methods.base import Method
from verifier.methods.portfolio import PortfolioMethod

OPEN = re.compile(r"\d+ (boxes|subproblems) are open after \d+, the margin is at least -\d")


class Watching:
    """A progress that does something once a search says how it stands."""

    def __init__(self, then) -> None:
        self.then, self.heard = then, []

    def __call__(self, done: int, total: int) -> None: ...

    def stands(self, words: str) -> None:
        self.heard.append(words)
        self.then()


@pytest.fixture
def hard(tmp_path: Path) -> tuple[Path, Property]:
    """Return a model and a property that no search decides within minutes."""
    network = random_relu_network(7, (12, 60, 60, 60, 2))
    write_network(network, tmp_path / "model.safetensors")
    # On random points the first output reaches .46.
    ends = torch.tensor([1.0, math.inf])
    return tmp_path / "model.safetensors", output_within(torch.zeros(12), torch.ones(12), [-math.inf] * 2, ends)


@pytest.mark.parametrize("method", ["input-split", "exact"])
def test_an_interruption_leaves_what_is_known_and_the_run_goes_on(hard, tmp_path, method) -> None:
    watching, run = Watching(lambda: os.kill(os.getpid(), signal.SIGINT)), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        verify(*hard, method=method, out=run, progress=watching, time_limit=60.0)
    (record,) = records_of(run)
    assert record["verdict"] == "unknown" and record["tried"] < 60.0
    assert record["reason"].startswith("interrupted; ") and OPEN.search(record["reason"])
    assert OPEN.search(watching.heard[0]) and not check(run).refused
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = verify(*hard, method=method, out=run, time_limit=60.0, progress=Watching(lambda: None), memory_limit=1e-3)
    # Asked again, and stopped at once.
    assert again.properties[0].reason.startswith("memory limit") and len(records_of(run)) == 1


def test_memory_that_runs_out_in_a_search_leaves_the_region_open(hard, monkeypatch) -> None:
    calls = []

    def growing() -> int:
        calls.append(None)
        return len(calls) << 20

    monkeypatch.setattr("verifier.budget.resident_bytes", growing)
    (found,) = verify(*hard, method="input-split", memory_limit=20 / 1024).properties
    assert found.verdict == "unknown" and found.reason.startswith("memory limit of 0.0195 GiB; ")
    assert OPEN.search(found.reason)
    with pytest.raises(ValueError, match="memory limit"):
        verify(*hard, memory_limit=0.0)


def test_memory_is_looked_at_before_it_can_have_reached_its_limit(monkeypatch) -> None:
    now, held, looks = [0.0], [0.0], []
    monkeypatch.setattr("verifier.budget.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("verifier.budget.resident_bytes", lambda: looks.append(now[0]) or held[0])
    watch = Watch(memory=4 * GROWTH)
    # Far below: a look each quarter of a second. It grows as fast as memory can be written from a second on.
    for step in range(1, 6_001):
        now[0] = step / 1000
        held[0] = max(0.0, now[0] - 1.0) * GROWTH
        assert (watch.why is not None) == (held[0] > watch.memory) or held[0] - watch.memory < GROWTH / 500
    assert sum(look <= 1.0 for look in looks) <= 5 and len([look for look in looks if look < 5.0]) < 60
    # Above the limit each look counts, so that what recovers goes on.
    held[0] = 0.0
    assert watch.why is None


def test_an_interruption_of_certify_leaves_the_inputs_of_its_batch(tmp_path) -> None:
    network = random_relu_network(7, (12, 60, 60, 60, 2))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(4, 12, generator=torch.Generator().manual_seed(0))
    labels = network.evaluate(x).argmax(dim=1)
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=labels.numpy())

    def ask(epsilons, **options):
        model, data = tmp_path / "model.safetensors", tmp_path / "data.npz"
        return certify(model, data, epsilons, method="input-split", out=tmp_path / "run", **options)

    with pytest.raises(KeyboardInterrupt):
        # The first radius is proved, the second is not within minutes.
        ask([1e-4, 0.9], progress=Watching(lambda: os.kill(os.getpid(), signal.SIGINT)), clip=(0, 1))
    records = records_of(tmp_path / "run")
    assert len(records) == 4
    undecided = [record for record in records if record["reason"] is not None]
    assert undecided and all("interrupted" in record["reason"] and not record["tried"] for record in undecided)


def test_a_second_interruption_ends_at_once_and_elsewhere_nothing_changes() -> None:
    with pytest.raises(KeyboardInterrupt), interruption(True) as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.is_set()
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruption(False) as stopped:
        os.kill(os.getpid(), signal.SIGINT)
    assert not stopped.is_set() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    handlers = []

    def elsewhere() -> None:
        with interruption(True):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_parts_of_a_budget_share_its_watch_and_reports_come_now_and_then() -> None:
    heard: list[str] = []
    watch = Watch(told=heard.append)
    part = Budget(60.0, watch=watch).share(3)
    assert 19.0 < part.seconds <= 20.0 and Budget().share(3).seconds == math.inf
    for word in ("first", "too soon"):
        part.watch.tell(lambda word=word: word)
    assert heard == ["first"] and part.why is None
    watch.stopped.set()
    assert part.exhausted and part.why == "interrupted" and not part.timed_out
    assert Budget(0.0, watch=watch).why == "time limit"


def test_memory_is_that_of_the_process() -> None:
    before = resident_bytes()
    held = b"x" * (64 << 20)
    assert resident_bytes() - before > 32 << 20 and len(held)
    assert before < memory_to_use()


class Deaf(Method):
    """Never looks at its budget, nor lets an exception end it."""

    name, proves, finds = "deaf", True, False

    def decide(self, batch, region, budget):
        while True:
            with contextlib.suppress(Exception):
                torch.ones(3).sum()

    bracket = decide


def test_work_that_never_looks_at_its_budget_is_ended_by_force(hard, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("verifier.budget.GRACE", 0.1)
    monkeypatch.setattr(
        "verifier.commands.verify.find_prover", lambda _: PortfolioMethod([METHODS["interval"], Deaf()])
    )
    (found,) = verify(*hard, time_limit=0.2, out=tmp_path / "run").properties
    assert found.verdict == "timeout" and found.reason == "time limit" and found.seconds < 5
    assert [total.stage for total in found.spent] == ["interval", "deaf"]
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    monkeypatch.setattr("verifier.commands.verify.find_prover", lambda _: Deaf())
    (again,) = verify(*hard, memory_limit=1e-3).properties
    assert again.verdict == "unknown" and again.reason.startswith("memory limit")


def test_a_budget_that_recovers_ends_nothing(monkeypatch) -> None:
    monkeypatch.setattr("verifier.budget.GRACE", 0.6)
    sizes = iter([2, 2, *[0] * 1000])
    monkeypatch.setattr("verifier.budget.resident_bytes", lambda: next(sizes))
    with guarded(Budget(watch=Watch(memory=1))):
        ended = time.monotonic() + 1.5
        while time.monotonic() < ended:
            pass


def test_an_interruption_while_a_guard_ends_leaves_no_alarm(monkeypatch) -> None:
    real = signal.setitimer

    def interrupted(which, seconds, interval=0.0):
        real(which, seconds, interval)
        if seconds == 0.0:
            monkeypatch.setattr(signal, "setitimer", real)
            raise KeyboardInterrupt

    monkeypatch.setattr(signal, "setitimer", interrupted)
    with pytest.raises(KeyboardInterrupt), guarded(Budget(100.0)):
        pass
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
