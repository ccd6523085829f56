"""Lipschitz bounds of MWD networks: true on random pairs, and never against a counterexample."""

import mpmath
import pytest
import torch

from encoders.ops import Mwd, MwdConv2d, Relu, Reshape
from tests.answers import bracketed, decided
from tests.networks.chains import chain
from tests.networks.mwd_chains import random_mwd_network
from verifier.attacks import ATTACKS
from verifier.batch import Batch
from verifier.bounds.mwd.lipschitz import GREATEST_SLOPE, distance_sensitivities, link_slope, lipschitz_radius
from verifier.budget import Budget
from verifier.certificates.distance_chain import dense_layers
from verifier.methods import METHODS
from verifier.methods.contraction import ContractionMethod
from verifier.methods.falsify import FalsifyMethod
from verifier.subject import Subject
from verifier.verdict import Outcome

F64 = torch.float64


def small_sensitivities(seed: int, kind: str, sizes=(4, 8, 6, 3)):
    """Return a random network whose weights are so small that Lipschitz radii matter."""
    network = random_mwd_network(seed, sizes)
    ops = []
    for node in network.nodes:
        op, last = node.op, node is network.output
        negated = op.negated
        if last and kind != "mixed":
            negated = torch.full_like(op.negated, kind == "negated")
        bias, link = None, None
        if last and kind == "linear":
            negated, link = op.negated, "linear"
            bias = torch.rand(len(negated), generator=torch.Generator().manual_seed(seed))
        ops.append(Mwd(op.weight / 1.5, 1.5 * op.attractor, negated, bias, link))
    return chain((sizes[0],), *ops)


def batch_of(network, centres):
    subject = Subject("test", network, lambda x: network.evaluate(torch.from_numpy(x)).numpy(), torch.device("cpu"))
    classes = network.scores(centres).argmax(dim=1)
    return Batch(subject, centres.to(F64), classes, tuple(range(len(centres))), None, 1.0)


def test_the_greatest_slope_is_rounded_up():
    with mpmath.workdps(50):
        exact = mpmath.sqrt(2 / mpmath.e)
        assert exact <= GREATEST_SLOPE <= exact * (1 + mpmath.mpf(2) ** -50)
        z = [mpmath.mpf(i) / 1000 for i in range(3000)]
        assert max(2 * t * mpmath.exp(-t * t) for t in z) <= GREATEST_SLOPE


@pytest.mark.parametrize("kind", ["plain", "negated", "mixed", "linear"])
@pytest.mark.parametrize("seed", range(4))
def test_the_recursion_bounds_the_change_between_random_pairs(seed, kind):
    network = small_sensitivities(seed, kind).cast(F64)
    op = network.output.op
    s = distance_sensitivities(dense_layers(network, "lipschitz"))
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4000, 4, generator=generator, dtype=F64)
    # Near pairs reach slopes, far ones saturation.
    y = x + 10.0 ** (-4 * torch.rand(4000, 1, generator=generator, dtype=F64)) * (
        2 * torch.rand(4000, 4, generator=generator, dtype=F64) - 1
    )
    apart = (x - y).abs().amax(dim=1, keepdim=True)
    (before_x, before_y) = (
        network.fold(point, lambda op, values: op.evaluate(*values), network.output.inputs)[0] for point in (x, y)
    )
    plain = Mwd(op.weight, op.attractor, torch.ones_like(op.negated), None, "linear")
    distances = (plain.evaluate(before_x) - plain.evaluate(before_y)).abs()
    assert bool((distances <= s * apart + 1e-12).all())
    outputs = (network.evaluate(x) - network.evaluate(y)).abs()
    assert bool((outputs <= link_slope(op) * s * apart + 1e-12).all())


@pytest.mark.parametrize("kind", ["plain", "negated", "mixed", "linear"])
@pytest.mark.parametrize(("seed", "count"), [(0, 8), *(pytest.param(s, 30, marks=pytest.mark.slow) for s in range(4))])
def test_no_counterexample_lies_within_the_radius(seed, count, kind):
    network = small_sensitivities(seed, kind)
    centres = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    batch = batch_of(network, centres)
    radii = lipschitz_radius(network, batch.centres, batch.classes)
    assert bool((radii > 0).any())
    # Every method that finds looks just inside the radius.
    region = batch.region(radii.clamp(min=0.0))
    for method in (FalsifyMethod("attack", [ATTACKS["pgd"], ATTACKS["auto"]]), ContractionMethod()):
        decision = decided(method, batch, region, Budget())
        assert not any(float(radii[row]) >= 0 for row in decision.witnesses)
    proved = decided(METHODS["lipschitz"], batch, batch.region(0.01), Budget()).certified
    assert torch.equal(proved, radii >= 0.01)


def test_the_radius_is_that_of_the_formula_and_zero_where_classes_tie():
    # z = (|x|, |x - 1|), s = (1, 1): at x = 0.1 the margin is 0.8 and the radius 0.4; at x = 0.5 there is none.
    op = Mwd(torch.ones(2, 1), torch.tensor([[0.0], [1.0]]), torch.tensor([False, False]))
    network = chain((1,), op)
    points, classes = torch.tensor([[0.125], [0.5], [0.875]], dtype=F64), torch.tensor([0, 0, 0])
    radii = lipschitz_radius(network, points, classes)
    assert float(radii[0]) == pytest.approx(0.375, rel=1e-14) and float(radii[0]) < 0.375
    assert radii[1:].tolist() == [-1.0, -1.0]
    # At the radius itself the classes tie, which is a counterexample.
    assert len(set(network.scores(points[:1] + 0.375)[0].tolist())) == 1


def test_brackets_are_raised_and_other_networks_refused():
    network = small_sensitivities(1, "negated")
    batch = batch_of(network, torch.rand(20, 4, generator=torch.Generator().manual_seed(9)))
    findings = bracketed(METHODS["lipschitz"], batch, [0.01], Budget())
    radii = lipschitz_radius(network, batch.centres, batch.classes)
    assert bool((radii > 0.01).any())
    for bracket, radius in zip(findings.brackets, radii.tolist(), strict=True):
        assert bracket.lower == radius if radius >= 0 else bracket.lower < 0
        assert bracket.at(0.01) is (Outcome.CERTIFIED if radius >= 0.01 else Outcome.OPEN)
    assert "1-relu" in METHODS["lipschitz"].refusal(chain((4,), network.nodes[0].op, Relu()))
    with pytest.raises(ValueError, match="'lipschitz' takes a chain"):
        lipschitz_radius(chain((4,), Relu()), batch.centres, batch.classes)


def test_convolutions_are_bounded_too():
    generator = torch.Generator().manual_seed(3)
    weight, attractor = (torch.rand(3, 1, 2, 2, generator=generator) for _ in range(2))
    first = MwdConv2d(weight, attractor, torch.tensor([True, False, True]))
    last = Mwd(torch.rand(3, 12, generator=generator), torch.rand(3, 12, generator=generator), torch.ones(3).bool())
    network = chain((1, 3, 3), first, Reshape((12,)), last)
    batch = batch_of(network, torch.rand(50, 1, 3, 3, generator=generator))
    radii = lipschitz_radius(network, batch.centres, batch.classes)
    decision = decided(ContractionMethod(), batch, batch.region(radii.clamp(min=0.0)), Budget())
    assert bool((radii > 0).any()) and not any(float(radii[row]) >= 0 for row in decision.witnesses)
