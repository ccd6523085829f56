"""What a device's memory does not hold at once comes out as that of smaller batches, and never as a crash."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.questions import never_largest
from tests.networks.batches import random_batch
from tests.networks.chains import random_relu_network
from tests.pretended_device import memory, pretended
from verifier import attack, certify, compare, robustness, verify
from verifier.answers import Answer
from verifier.attacks import ATTACKS, Search
from verifier.bounds.split.dual_ascent import DualAscent, Lines, _at
from verifier.bounds.split.stages import staged
from verifier.budget import Budget
from verifier.commands.estimators import Estimate, in_threads
from verifier.devices import choice
from verifier.devices.parts import OUT_OF_MEMORY, in_parts
from verifier.methods import METHODS
from verifier.methods.in_memory import bracketed, decided
from verifier.methods.portfolio import PortfolioMethod
from verifier.restriction.optimum import Outcome
from verifier.witnesses.find import find_witnesses
from verifier.witnesses.pursuit import pursue

TOO_SMALL = "the device's memory is too small"
pytestmark = pytest.mark.filterwarnings(f"ignore:{TOO_SMALL}")


@pytest.fixture
def cuda(monkeypatch):
    """Yield the pretended device, whatever the device of other tests: a real one's memory is not so small."""
    monkeypatch.setenv("ENCODERS_MWD_KERNELS", "reference")
    with pretended() as there:
        yield there


def parts_of(most: int, count: int, size: int) -> list[slice]:
    """Return the parts that are asked for where a memory holds so many inputs."""
    asked = []

    def work(part: slice) -> slice:
        asked.append(part)
        if part.stop - part.start > most:
            raise torch.OutOfMemoryError
        return part

    kept = in_parts(work, count, size)
    assert sorted(i for part in kept for i in range(count)[part]) == list(range(count))
    return asked


def test_parts_are_halved_until_they_fit_and_stay_so_small():
    assert parts_of(8, 8, 8) == [slice(0, 8)]
    assert parts_of(3, 10, 8) == [slice(0, 8), slice(0, 4), slice(0, 2), *(slice(i, i + 2) for i in range(2, 10, 2))]
    assert parts_of(2, 5, 5) == [slice(0, 5), slice(0, 3), slice(0, 2), slice(2, 4), slice(4, 5)]
    assert parts_of(9, 0, 0) == []
    with pytest.warns(UserWarning, match=f"{TOO_SMALL} for 2 at a time, going on with 1"):
        parts_of(1, 2, 2)


def test_an_input_that_does_not_fit_alone_is_its_callers_business():
    def work(part: slice) -> list[str]:
        if 3 in range(part.start, part.stop):
            raise torch.OutOfMemoryError("full")
        return [f"{row} fits" for row in range(part.start, part.stop)]

    found = [words for part in in_parts(work, 6, 4, lambda row: [f"{row} does not"]) for words in part]
    assert found == ["0 fits", "1 fits", "2 fits", "3 does not", "4 fits", "5 fits"]
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        in_parts(work, 6, 4)
    with pytest.raises(KeyError):
        in_parts(lambda part: {}["other errors"], 6, 4, lambda row: ["stay"])


NETWORK = random_relu_network(3, (2, 8, 8, 3))
PGD = dataclasses.replace(ATTACKS["pgd"], steps=2, restarts=1)
RADII = {"interval": 0.02, "crown": 0.05, "attack": 0.2}
# Bytes of less than 16 inputs in float64: of their values, of the rows of their linear bounds.
HELD = {"interval": 16 * 8 * 8 - 1, "crown": 16 * 8 * 8 * 8 - 1, "attack": 16 * 8 * 8 - 1}


def batch_on(device: torch.device, network, count: int):
    batch = random_batch(network, count, 2)
    subject = dataclasses.replace(batch.subject, device=device)
    return dataclasses.replace(
        batch, subject=subject, centres=batch.centres.to(device), classes=batch.classes.to(device)
    )


def ends(answers) -> list[tuple]:
    return [(a.bracket.lower, a.bracket.upper, a.reason, a.witness and a.witness.point.tolist()) for a in answers]


@pytest.mark.parametrize("name", HELD)
def test_methods_decide_as_on_batches_of_the_size_that_fits(name, cuda):
    batch, budget = batch_on(cuda, NETWORK, 16), Budget()

    def decide(part):
        region = part.region(RADII[name])
        if name == "attack":
            return find_witnesses([PGD], part, region, name, budget)
        return decided(METHODS[name], part, region, budget)

    whole = decide(batch)
    with memory(HELD[name]), pytest.warns(UserWarning, match=TOO_SMALL) as told:
        found = decide(batch)
    size = int(str(told[-1].message).split()[-1])
    assert size < 16
    parts = [batch.at(torch.arange(first, min(first + size, 16))) for first in range(0, 16, size)]
    assert ends(found) == ends(answer for part in parts for answer in decide(part))
    # What bits may differ in decides nothing here.
    assert [(a.bracket.lower, a.witness is None) for a in found] == [
        (a.bracket.lower, a.witness is None) for a in whole
    ]
    assert len({a.bracket for a in found}) > 1


def test_brackets_are_those_of_the_parts():
    """Each with what was known of its inputs; an input that does not fit keeps it, with the reason."""
    batch, asked = batch_on(torch.device("cpu"), NETWORK, 6), []

    class Small(type(METHODS["interval"])):
        def bracket(self, batch, epsilons, answers, budget):
            asked.append(len(batch))
            if len(batch) > 2 or 5 in batch.seeds:
                raise torch.OutOfMemoryError
            pairs = zip(batch.seeds, answers, strict=True)
            return [answer.merge(Answer.proved(seed / 10, "b", "checked")) for seed, answer in pairs]

    known = [Answer.proved(0.25, "a", "checked")] * 6
    found = bracketed(Small(), batch, [0.1], known, Budget())
    assert [a.bracket.lower for a in found] == [0.25, 0.25, 0.25, 0.3, 0.4, 0.25]
    assert [a.reason for a in found] == [None] * 5 + [OUT_OF_MEMORY]
    assert asked == [6, 3, 2, 2, 2, 1, 1]


def test_what_holds_no_input_leaves_all_open_with_the_reason(cuda):
    batch, budget = batch_on(cuda, NETWORK, 2), Budget()
    with memory(8 * 8 * 4 - 1):
        for name in ("interval", "crown"):
            assert [a.reason for a in decided(METHODS[name], batch, batch.region(0.1), budget)] == [OUT_OF_MEMORY] * 2
        found = find_witnesses([PGD], batch, batch.region(0.1), "attack", budget)
    assert [(a.reason, a.witness) for a in found] == [(OUT_OF_MEMORY, None)] * 2


def test_a_later_stage_takes_what_the_memory_did_not_hold(cuda):
    """Solvers and searches that work on the processor go on."""
    batch = batch_on(cuda, NETWORK, 1)

    class Spoken(type(METHODS["interval"])):
        def decide(self, batch, region, budget):
            return [Answer.proved(0.02, "spoken", "checked")]

    with memory(8 * 8 * 4 - 1):
        (found,) = PortfolioMethod([METHODS["interval"], Spoken()]).decide(batch, batch.region(0.02), Budget())
    assert [spent.reason for spent in found.spent] == [OUT_OF_MEMORY, None]
    assert found.bracket.lower == 0.02


def test_an_attack_counts_what_counts_once(cuda):
    batch, reports = batch_on(cuda, NETWORK, 16), []
    for largest in (math.inf, HELD["attack"]):
        search = Search(NETWORK, batch.region(0.01), batch.classes, batch.seeds, Budget())
        with memory(largest):
            pursue(PGD, search, lambda hits, points: [Answer()] * len(hits))
        report = search.record
        reports.append((report.queries.tolist(), report.gradients.tolist(), report.vanishing.tolist()))
    assert reports[0] == reports[1] and sum(reports[0][1])


def test_ascents_take_pieces_that_the_memory_holds(monkeypatch):
    generator = torch.Generator().manual_seed(6)
    network = staged(random_relu_network(2, (4, 6, 6, 4))).to(torch.float64)
    box = torch.randn(2, 4, generator=generator, dtype=torch.float64).sort(dim=0).values
    count = sum(stage.size for stage in network.hinges)
    ascent, inner = DualAscent(network, *box), DualAscent._ascend
    lines = Lines.on(
        *torch.randn(2, 1, count, generator=generator, dtype=torch.float64).sort(dim=0).values, ascent.left
    )
    rows, slopes, multipliers = (torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (4, count, count))
    given = (rows, lines, slopes.clamp(0, 1), multipliers)
    parts = [slice(0, 4), slice(4, 8)]
    halves = [ascent.ascend(network.output, *_at(part, *given), 2, math.inf) for part in parts]

    def ascend(self, stage, rows, *others):
        if len(rows) > 4:
            raise torch.OutOfMemoryError
        return inner(self, stage, rows, *others)

    monkeypatch.setattr(DualAscent, "_ascend", ascend)
    found = ascent.ascend(network.output, *given, 2, math.inf)
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(found, zip(*halves, strict=True), strict=True))


@pytest.fixture
def there(cuda, monkeypatch):
    """Have torch find the pretended device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(choice, "faults", lambda device: [])


# Of each command, what it is asked of a model and data.
ASKED = {
    "certify": lambda model, data, **asked: certify(model, data, [0.01], method="interval", **asked),
    "attack": lambda model, data, **asked: attack(model, data, "pgd", 0.05, **asked),
    "robustness": lambda model, data, **asked: robustness(model, data, 0.01, estimators=("pgd",), **asked),
    "compare": lambda model, data, **asked: compare(model, data, 0.01, methods=("interval", "crown"), **asked),
    "verify": lambda model, data, **asked: verify(model, BOXES, method="interval", **asked),
}
BOXES = [
    never_largest([0.4, 0.4, start], [0.41, 0.41, start + 0.01], 0, 3, name=f"box {start}") for start in (0.1, 0.5, 0.9)
]


@pytest.mark.parametrize("name", ASKED)
def test_a_run_leaves_open_what_the_memory_does_not_hold_and_takes_it_up_again(name, tmp_path, there, monkeypatch):
    monkeypatch.setitem(ATTACKS, "pgd", PGD)
    network, model, out = random_relu_network(3, (3, 24, 3)), tmp_path / "model.safetensors", tmp_path / "run"
    write_network(network, model)
    x = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())

    def reasons() -> list[str | None]:
        ASKED[name](model, tmp_path / "data.npz", device="cuda", out=out)
        found = {}
        for line in (out / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            said = [method.get("reason") for method in record.get("methods", {}).values()] or [record["reason"]]
            found[record.get("index")] = set(said)
        return [words for number in sorted(found) for words in found[number]]

    with memory(3 * 24 * 4 - 1):
        assert reasons() == [OUT_OF_MEMORY] * 3
        # Nothing has changed, and nothing else is said.
        assert reasons() == [OUT_OF_MEMORY] * 3
    # Not tried: the same command, where there is more memory, takes it up again.
    again = reasons()
    assert len(again) == 3 and OUT_OF_MEMORY not in again
    # That is all: once they are answered nobody asks again.
    before = (out / "records.jsonl").read_text()
    reasons()
    assert (out / "records.jsonl").read_text() == before


def test_programs_of_an_input_that_the_memory_does_not_hold_are_asked_again():
    """One input at a time, in threads: there is nothing to halve."""
    full = [Estimate(None, Outcome.FULL, 0.0)] * 4

    def work(row: int) -> Estimate:
        if row == 2:
            raise torch.OutOfMemoryError
        return Estimate(None, Outcome.BEYOND, float(row))

    assert [estimate.outcome for estimate in in_threads(work, full)] == ["beyond", "beyond", "out of memory", "beyond"]
