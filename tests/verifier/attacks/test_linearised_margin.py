"""The one-step attacks of Huang et al.: closed forms, and the printed formulas that fail."""

import math

import pytest
import torch
from scipy.optimize import linprog

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.searches import digits_search, random_search, search_of
from verifier.attacks import ATTACKS
from verifier.attacks.linearise import linearise
from verifier.attacks.linearised_margin import LinearisedLoss, LinearisedMargin, output_margins
from verifier.attacks.source import Source

NORMS = ("inf", "2", "1")
DUAL = {"inf": 1.0, "2": 2.0, "1": math.inf}


def linear(seed=0, classes=5, inputs=8, scale=1.0):
    """Return (network, weight, bias, centres) of a linear network."""
    generator = torch.Generator().manual_seed(seed)
    weight, bias = scale * torch.randn(classes, inputs, generator=generator), torch.randn(classes, generator=generator)
    return chain((inputs,), Affine(weight, bias)), weight, bias, torch.randn(10, inputs, generator=generator)


def softmax_model(search, form="softmax"):
    model = linearise(Source(search.network), search.region.centre.float(), search.classes)
    return model, *output_margins(model, form)


@pytest.mark.parametrize("norm", NORMS)
def test_the_logit_form_flips_a_linear_network_exactly_from_its_length_on(norm):
    network, weight, bias, centres = linear()
    classes = network.scores(centres).argmax(dim=1)
    scores = centres.double() @ weight.double().T + bias.double()
    gaps = scores.gather(1, classes[:, None]) - scores
    sizes = torch.linalg.vector_norm(weight.double()[classes][:, None] - weight.double()[None], DUAL[norm], dim=2)
    rho = torch.where(sizes > 0, gaps / sizes, torch.inf).amin(dim=1)
    for factor, flips in ((1 - 1e-4, False), (1 + 1e-4, True)):
        search = search_of(network, centres, 1.0, classes, norm=norm, domain=None)
        region = search.region.with_radius(rho * factor)
        search = type(search)(network, region, classes, search.seeds, search.budget)
        assert LinearisedMargin(form="logit").run(search).unsafe.tolist() == [flips] * 10


def test_the_softmax_form_of_two_classes_has_the_length_sinh_margin_over_slope():
    # g_0 - g_1 = tanh(m / 2) and its gradient (1 - tanh(m / 2)^2) / 2 times that of m: the quotient is sinh(m) / |dm|.
    network, weight, bias, centres = linear(1, classes=2)
    search = search_of(network, centres, 1.0, network.scores(centres).argmax(dim=1), domain=None)
    _, margins, gradients = softmax_model(search)
    m = ((centres.double() @ (weight[0] - weight[1]).double()) + float(bias[0] - bias[1])).abs()
    lengths = margins[:, 0] / torch.linalg.vector_norm(gradients[:, 0], dim=1)
    expected = torch.sinh(m) / torch.linalg.vector_norm((weight[0] - weight[1]).double())
    assert torch.allclose(lengths, expected, rtol=1e-5)


def test_softmax_margins_and_gradients_are_those_of_the_softmax_up_to_a_factor():
    network, *_, centres = linear(2)
    search = search_of(network, centres, 1.0, network.scores(centres).argmax(dim=1), domain=None)
    model, margins, gradients = softmax_model(search)
    for column in range(4):
        x = centres.double().requires_grad_()
        alpha = network.cast(torch.float64).scores(x).softmax(dim=1)
        other = model.others[:, column : column + 1]
        value = (alpha.gather(1, search.classes[:, None]) - alpha.gather(1, other)).squeeze(1)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        factor = margins[:, column] / value.detach()
        assert torch.allclose(gradients[:, column], gradient * factor[:, None], rtol=1e-4, atol=1e-5)


def test_a_saturated_softmax_keeps_its_direction_where_the_plain_formula_is_zero_over_zero():
    network, weight, _, centres = linear(3, classes=2, scale=300.0)
    classes = network.scores(centres).argmax(dim=1)
    x = centres.clone().requires_grad_()
    alpha = network.scores(x).softmax(dim=1)
    plain = torch.stack([torch.autograd.grad(alpha[:, k].sum(), x, retain_graph=True)[0] for k in (0, 1)], dim=1)
    difference = plain[torch.arange(10), classes] - plain[torch.arange(10), 1 - classes]
    assert bool((difference == 0).all(dim=1).any())
    _, margins, gradients = softmax_model(search_of(network, centres, 1.0, classes, domain=None))
    assert bool(margins.isfinite().all()) and bool(gradients.isfinite().all())
    sign = torch.where(classes == 0, 1.0, -1.0)[:, None].double()
    cosine = torch.cosine_similarity(gradients[:, 0], sign * (weight[0] - weight[1]).double(), dim=1)
    assert torch.allclose(cosine, torch.ones(10, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_the_step_solves_the_program_whose_printed_constraint_is_solved_by_zero(norm):
    # Huang et al., section 3.1, constraint (1): min ||r|| s.t. (T_j - T_J) r <= alpha_J - alpha_j. Zero is feasible,
    # as the right side is positive; with >= the optimum is the formula of proposition 2.1.
    network, *_, centres = linear(4, classes=3, inputs=4)
    search = search_of(network, centres[:1], 1.0, network.scores(centres[:1]).argmax(dim=1), norm=norm, domain=None)
    _, margins, gradients = softmax_model(search)
    right, row = float(margins[0, 0]), -gradients[0, 0].numpy()
    assert right > 0
    n = len(row)
    count = 1 if norm == "inf" else n
    sizes = torch.ones(n, 1).numpy() if norm == "inf" else torch.eye(n).numpy()
    identity = torch.eye(n).numpy()
    limits = [[*identity[i], *(-sizes[i])] for i in range(n)] + [[*(-identity[i]), *(-sizes[i])] for i in range(n)]

    def solve(sign):
        constraint = [*(sign * row), *[0.0] * count]
        bounds = [(None, None)] * n + [(0, None)] * count
        right_sides = [0.0] * (2 * n) + [sign * right]
        return linprog([0.0] * n + [1.0] * count, A_ub=[*limits, constraint], b_ub=right_sides, bounds=bounds).fun

    assert solve(1.0) == pytest.approx(0.0, abs=1e-9)
    formula = right / float(torch.linalg.vector_norm(gradients[0, 0], DUAL[norm]))
    assert solve(-1.0) == pytest.approx(formula, rel=1e-6)


def test_the_printed_one_norm_step_goes_the_wrong_way_where_its_coordinate_is_negative():
    # r = (alpha_J - alpha_j) / ||.||_inf e_I without the sign of (T_j - T_J)_I.
    row, right = torch.tensor([0.5, -2.0, 1.0]), 0.7
    unit = torch.zeros(3).index_fill(0, row.abs().argmax(), 1.0)
    printed = right / float(row.abs().max()) * unit
    assert float(row @ printed) == pytest.approx(-right)
    assert float(row @ (row.sign() * printed)) == pytest.approx(right)


def test_the_own_class_in_the_loop_is_zero_over_zero():
    # Algorithm 1 runs over j = 1..d with j = J among them.
    own = torch.zeros(3)
    assert bool(torch.isnan(torch.tensor(0.0) / own.norm()))
    network, *_, centres = linear(5)
    search = search_of(network, centres, 1.0, network.scores(centres).argmax(dim=1), domain=None)
    model, margins, gradients = softmax_model(search)
    assert margins.shape == (10, 4) and not bool((model.others == search.classes[:, None]).any())
    assert bool((torch.linalg.vector_norm(gradients, dim=2) > 0).all())


@pytest.mark.parametrize("norm", NORMS)
def test_adv_loss_is_one_step_against_the_gradient_and_the_printed_one_raises_the_class(norm):
    network = random_relu_network(3, (6, 12, 10, 5)).cast(torch.float64)
    centres = torch.rand(20, 6, generator=torch.Generator().manual_seed(6)).double() * 0.5 + 0.25
    classes = network.scores(centres).argmax(dim=1)
    length = 1e-3
    search = search_of(network, centres.float(), length, classes, norm=norm, domain=None)
    points = LinearisedLoss().propose(search).double()
    x = search.region.centre.requires_grad_()
    own = network.scores(x).softmax(dim=1).gather(1, classes[:, None]).squeeze(1)
    (t,) = torch.autograd.grad(own.sum(), x)
    at = torch.nn.functional.one_hot(t.abs().argmax(dim=1), 6)
    step = {"inf": t.sign(), "2": t / torch.linalg.vector_norm(t, dim=1, keepdim=True), "1": at * t.sign()}[norm]
    assert torch.allclose(points - x.detach(), -length * step, atol=1e-6)

    def probability(z):
        return network.scores(z).softmax(dim=1).gather(1, classes[:, None]).squeeze(1)

    with torch.no_grad():
        assert bool((probability(x - length * step) < own).all())
        assert bool((probability(x + length * step) > own).all())


def test_in_the_inf_norm_adv_loss_is_fgsm():
    # Huang et al., section 3.1.1, item 2; it holds only with the minus.
    search = random_search(random_relu_network(3, (6, 12, 10, 5)), 20, 0.05)
    assert torch.allclose(LinearisedLoss().run(search).points, ATTACKS["fgsm"].run(search).points, atol=1e-6)


def test_adv_loss_sign_has_the_direction_of_the_sign_and_the_length_of_the_norm():
    search = random_search(random_relu_network(3, (6, 12, 10, 5)), 15, 0.05, norm="2", domain=None)
    for norm in NORMS:
        region = type(search.region)(search.region.centre, search.region.radius, None, norm)
        within = type(search)(search.network, region, search.classes, search.seeds, search.budget)
        step = LinearisedLoss(sign=True).propose(within).double() - region.centre
        assert torch.allclose(torch.linalg.vector_norm(step, float(norm), dim=1), region.radius, rtol=1e-3)
        moved = step.abs()
        assert torch.allclose(moved, moved[:, :1].expand_as(moved), rtol=1e-3, atol=1e-7)
    # Length m in the 2-norm is m / sqrt(n) in the inf-norm (their 1.5 on 784 pixels is .0536).
    assert pytest.approx(0.0536, abs=1e-4) == 1.5 / 784**0.5


@pytest.mark.parametrize("norm", NORMS)
def test_all_forms_stay_in_the_domain_and_targets_pull_towards_their_class(norm):
    search = random_search(random_relu_network(3, (6, 12, 10, 5)), 30, 0.3, norm=norm)
    targets = (search.classes + 1) % 5
    aimed = type(search)(search.network, search.region, search.classes, search.seeds, search.budget, targets)
    for attack in (LinearisedMargin(), LinearisedMargin(form="logit"), LinearisedLoss(), LinearisedLoss(form="logit")):
        found = attack.run(search)
        assert float(found.points.min()) >= 0 and float(found.points.max()) <= 1
        before = aimed.shortfalls(search.network.scores(search.region.centre.float()))
        after = aimed.shortfalls(search.network.scores(attack.run(aimed).points))
        assert float((after < before).double().mean()) > 0.7


def test_the_jacobian_takes_one_batched_backward_pass(monkeypatch):
    calls = []
    grad = torch.autograd.grad

    def counted(*arguments, **settings):
        calls.append(settings)
        return grad(*arguments, **settings)

    search = random_search(random_relu_network(3, (6, 12, 10, 5)), 8, 0.1)
    monkeypatch.setattr(torch.autograd, "grad", counted)
    LinearisedMargin().run(search)
    assert len(calls) == 1 and calls[0]["is_grads_batched"]


def test_mwd_networks_have_the_same_rows_class_by_class():
    network = random_mwd_network(3, (6, 8, 5))
    search = random_search(network, 6, 0.1)
    model = linearise(Source(network), search.region.centre.float(), search.classes)
    x = search.region.centre.float().requires_grad_()
    scores = network.scores(x)
    margin = scores.gather(1, search.classes[:, None]) - scores.gather(1, model.others[:, 2:3])
    assert torch.allclose(model.gradients[:, 2], torch.autograd.grad(margin.sum(), x)[0], atol=1e-6)


@pytest.mark.parametrize("length", [0.3, 0.6])
def test_the_order_of_the_paper_holds_on_digits(length):
    # Figure 1: Adv_Alpha at least as strong as Adv_Loss, both stronger than Adv_Loss_Sign, at equal 2-norm.
    search = digits_search("digits-relu", "2", 200, length)
    attacks = (LinearisedMargin(), LinearisedLoss(), LinearisedLoss(sign=True))
    alpha, loss, sign = (float(attack.run(search).unsafe.double().mean()) for attack in attacks)
    assert alpha >= loss > sign
