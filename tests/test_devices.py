"""Batched paths give on a device what they give on the processor, and no tensor is left on the wrong side.

Under a pretended device (`tests/pretended_device.py`), or on a real one with `pytest --device cuda`.
"""

import dataclasses

import numpy as np
import pytest
import torch

from encoders import BallRegion
from encoders.box import Box
from encoders.ops import RandomAffine
from tests.conformance.op_boxes import boxes_of
from tests.conformance.op_cases import ROWS, Case
from tests.networks.batches import random_batch
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.searches import random_search, search_of
from verifier.attacks import ATTACKS, Search
from verifier.attacks.against_votes import AgainstVotes
from verifier.attacks.masking import masking_signs
from verifier.attacks.report import Report
from verifier.bounds.linear import margins
from verifier.bounds.linear.margins import linear_margins
from verifier.bounds.linear.slopes import SlopeSearch
from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.operators import OperatorNetwork
from verifier.bounds.split.stages import staged
from verifier.budget import Budget
from verifier.methods import METHODS
from verifier.votes import BROKEN, KEPT, votes_at

F64 = torch.float64
# A real device sums in another order; the pretended one is the processor.
CLOSE = 1e-9
# Settings of attacks, cut: what each does on a device is done in a few steps.
FEW = {"pgd": {"steps": 4, "restarts": 2}, "apgd": {"steps": 6}, "square": {"queries": 20}}


def close(there: torch.Tensor, here: torch.Tensor) -> bool:
    assert there.is_cuda and not here.is_cuda
    return bool(torch.allclose(there.cpu(), here, rtol=CLOSE, atol=CLOSE, equal_nan=True))


def moved(region: BallRegion, device: torch.device) -> BallRegion:
    return BallRegion(region.centre.to(device), region.radius.to(device), region.domain, region.norm)


@pytest.mark.parametrize("case", ROWS)
def test_every_op_gives_values_gradients_and_intervals_of_the_processor(case: Case, device: torch.device) -> None:
    boxes = boxes_of(case, "ordinary", seed=5)
    op, there = case.op, case.op.cast(F64, device)
    results = []
    for each, where in ((op, torch.device("cpu")), (there, device)):
        x = [box.upper.to(where).requires_grad_() for box in boxes]
        value = each.evaluate(*x)
        gradients = torch.autograd.grad(value.sum(), x, allow_unused=True) if value.requires_grad else []
        ranges = each.interval(*(Box(box.lower.to(where), box.upper.to(where)) for box in boxes))
        kept = [g for g in gradients if g is not None]
        results.append([value.detach(), *kept, ranges.lower, ranges.upper])
    assert all(close(b, a) for a, b in zip(*results, strict=True))


def on(device: torch.device, search: Search) -> Search:
    region, classes = moved(search.region, device), search.classes.to(device)
    return dataclasses.replace(search, region=region, classes=classes, report=Report.empty(len(search), device))


@pytest.mark.parametrize(
    ("name", "make"),
    [("pgd", random_relu_network), ("apgd", random_relu_network), ("square", random_relu_network),
     ("pgd", random_mwd_network)],
)  # fmt: skip
def test_attacks_find_the_points_of_the_processor(name, make, device):
    attack = dataclasses.replace(ATTACKS[name], **FEW[name])
    search = random_search(make(4, (4, 8, 6, 3)), 4, 0.2)
    here, there = attack.run(search), attack.run(on(device, search))
    assert close(there.points, here.points)
    assert there.unsafe.tolist() == here.unsafe.tolist()


def test_an_attack_of_votes_finds_the_points_of_the_processor(device: torch.device) -> None:
    """Class 0 where x_0 + z > 1/2, z ~ N(0, .05^2)."""
    weight, bias = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([-0.5, 0.0])
    op = RandomAffine(weight, bias, deviation=0 * weight, bias_deviation=torch.tensor([0.05, 0.0]))
    x = torch.tensor([[0.9, 0.5], [0.6, 0.5]])
    network, wanted = chain((2,), op), AgainstVotes(dataclasses.replace(ATTACKS["pgd"], **FEW["pgd"]))
    classes = torch.zeros(2, dtype=torch.int64)
    here = wanted.run(search_of(network, x, 0.3, classes)).points
    there = wanted.run(on(device, search_of(network, x, 0.3, classes))).points
    assert close(there, here)
    counts = [votes_at(network, points, 40, 1) for points in (here, there)]
    assert close(counts[1].deciding, counts[0].deciding)
    assert counts[1].outcomes(classes.to(device)).tolist() == [KEPT, BROKEN]


def test_signs_of_masking_are_those_of_the_processor(device: torch.device) -> None:
    search = random_search(random_relu_network(4, (4, 8, 6, 3)), 4, 0.2)
    assert masking_signs(on(device, search), None) == masking_signs(search, None)


@pytest.mark.parametrize(
    ("norm", "make"), [("inf", random_relu_network), ("2", random_relu_network), ("inf", random_mwd_network)]
)
@pytest.mark.parametrize("ascends", [True, False])
def test_linear_bounds_are_those_of_the_processor(norm, make, ascends, device, monkeypatch):
    if not ascends:
        # Adam's steps are for what ascent does not take.
        monkeypatch.setattr(margins, "takes_ascent", lambda network, region: False)
    search = random_search(make(2, (4, 8, 6, 3)), 4, {"inf": 0.2, "2": 0.35}[norm], norm=norm)
    network, region, classes = search.network, search.region, search.classes
    for slopes in (None, SlopeSearch(2)):
        here = linear_margins(network, region, classes, slopes)
        there = linear_margins(network, moved(region, device), classes.to(device), slopes)
        assert close(there.lower, here.lower)
        assert here.points is None or close(there.points, here.points)


@pytest.mark.parametrize("form", [OperatorNetwork, staged])
def test_an_ascent_of_the_sign_search_is_that_of_the_processor(form, device):
    generator = torch.Generator().manual_seed(6)
    network = form(random_relu_network(2, (6, 12, 10, 4)))
    results = []
    box = torch.randn(2, 6, generator=generator, dtype=F64).sort(dim=0).values
    count = sum(stage.size for stage in network.hinges)
    ends = torch.randn(2, 1, count, generator=generator, dtype=F64).sort(dim=0).values
    rows, slopes, multipliers = (torch.randn(5, n, generator=generator, dtype=F64) for n in (4, count, count))
    for where in (torch.device("cpu"), device):
        here = network.to(F64, where)
        ascent = DualAscent(here, *box)
        lines = Lines.on(*ends.to(where), ascent.left)
        given = (rows.to(where), lines, slopes.clamp(0, 1).to(where), multipliers.to(where))
        results.append(ascent.ascend(here.output, *given, 3, torch.inf))
    assert all(close(b, a) for a, b in zip(*results, strict=True))


RELU, MWD = random_relu_network(3, (3, 6, 5, 3)), random_mwd_network(3, (3, 6, 5, 3))
DECIDED = [
    *[pytest.param(name, RELU, id=name) for name in ("interval", "crown")],
    *[pytest.param(name, MWD, id=name) for name in ("lipschitz", "contraction")],
    # They search on the processor, by what is compiled or by solvers.
    *[
        pytest.param(name, RELU, id=name, marks=pytest.mark.slow)
        for name in ("lp", "alpha-crown", "exact", "input-split", "restriction")
    ],
]


@pytest.mark.parametrize(("name", "network"), DECIDED)
def test_methods_take_batches_on_a_device_and_answer_as_on_the_processor(name, network, device):
    """Those that work on the processor bring over what they need."""
    brackets = []
    for where in (torch.device("cpu"), device):
        batch = random_batch(network, 2, 2)
        subject = dataclasses.replace(batch.subject, device=where)
        batch = dataclasses.replace(
            batch, subject=subject, centres=batch.centres.to(where), classes=batch.classes.to(where)
        )
        answers = [a for radius in (0.02, 0.3) for a in METHODS[name].decide(batch, batch.region(radius), Budget())]
        brackets.append([(answer.bracket.lower, answer.bracket.upper) for answer in answers])
    assert brackets[1] == [pytest.approx(pair) for pair in brackets[0]]


SIDES = {
    "an operation on both sides": lambda x, y: x + y,
    "an operation in place": lambda x, y: y.add_(x),
    "a product of matrices": lambda x, y: x[None] @ y[:, None],
    "a constant on the wrong side": lambda x, y: torch.where(x > 0, x, torch.zeros(3)),
    "rows that are joined": lambda x, y: torch.cat([x, y]),
    "scalars that are joined": lambda x, y: torch.stack([x[0], y[0]]),
    "indices that the processor does not see": lambda x, y: y[x > 0],
    "values set at indices": lambda x, y: x.__setitem__(torch.arange(3), y),
    "numpy": lambda x, y: x.numpy(),
    "an array": lambda x, y: np.asarray(x),
    "a gradient": lambda x, y: torch.autograd.grad((x.requires_grad_() * 2).sum() * y, x),
}


@pytest.mark.parametrize("use", SIDES.values(), ids=SIDES)
def test_what_a_device_refuses_is_refused(use, device):
    with pytest.raises((RuntimeError, TypeError), match=r"device|cuda"):
        use(torch.ones(3, device=device), torch.ones(3))


def test_what_a_device_takes_is_taken(device):
    x = torch.arange(3.0, device=device, requires_grad=True)
    (slope,) = torch.autograd.grad((x * torch.tensor(2.0) + 1.0)[torch.tensor([0, 2])].sum(), x)
    assert slope.is_cuda and slope.tolist() == [2.0, 0.0, 2.0]
    y = torch.zeros_like(x)
    y[1:] = torch.ones(2)
    y[x > 1] = 5.0
    assert y.is_cuda and np.asarray(y.cpu()).tolist() == [0.0, 1.0, 5.0]
    assert x.device.type == "cuda" and not x.cpu().is_cuda and x.new_tensor(1.0).is_cuda
