"""What perturbs inputs: on linear models every norm's dual is reached; settings that an attack lacks are refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from verifier.training.adversaries import ADVERSARIES, Adversary, adversary_named

DUAL = {"inf": 1.0, "2": 2.0, "1": torch.inf}
DESCENTS = ["fgsm", "ifgsm", "pgd", "fgsm-random", "mi-fgsm", "pgd-short", "apgd"]


def linear(seed: int, inputs: int = 7, classes: int = 2) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, classes)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("name", ["fgsm", "adv-loss", "adv-alpha"])
def test_a_step_on_a_linear_model_costs_the_margin_the_radius_times_the_dual_norm(name, norm):
    for seed in range(5):
        module = linear(seed)
        x, y = torch.rand(6, 7), torch.randint(2, (6,))
        points = Adversary(ADVERSARIES[name], 0.3, norm)(module, x, y)
        assert float(torch.linalg.vector_norm(points - x, float(norm), dim=1).max()) <= 0.3 * (1 + 1e-5)
        w = (module.weight[1] - module.weight[0]).detach() * (2 * y - 1)[:, None]
        expected = -0.3 * torch.linalg.vector_norm(w, DUAL[norm], dim=1)
        assert torch.allclose(((points - x) * w).sum(dim=1), expected, rtol=1e-4)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("name", ["pgd", "ifgsm", "mi-fgsm"])
def test_many_steps_on_a_linear_model_end_where_one_does(name, norm):
    module, x, y = linear(0), torch.rand(6, 7), torch.randint(2, (6,))
    one = Adversary(ADVERSARIES["fgsm"], 0.2, norm)(module, x, y)
    many = Adversary(ADVERSARIES[name], 0.2, norm)(module, x, y)
    losses = [functional.cross_entropy(module(points), y, reduction="none") for points in (one, many)]
    assert torch.allclose(losses[0], losses[1], rtol=3e-3)  # a step length of pgd


def test_adv_loss_sign_goes_along_signs_with_a_length_in_the_2_norm():
    """Huang et al. 2015, 3.1.1, with the minus that the paper lost: +sign would raise the class."""
    module, x, y = linear(1, 9), torch.rand(4, 9), torch.randint(2, (4,))
    moves = Adversary(ADVERSARIES["adv-loss-sign"], 1.5, "2")(module, x, y) - x
    assert torch.allclose(moves.abs(), torch.full_like(moves, 1.5 / 3), rtol=1e-4)
    w = (module.weight[1] - module.weight[0]).detach() * (2 * y - 1)[:, None]
    assert torch.equal(moves.sign(), -w.sign())


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("name", list(ADVERSARIES))
def test_examples_stay_in_ball_and_domain_and_raise_the_loss(name, norm):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    x, y = torch.rand(20, 12), torch.randint(4, (20,))
    points = Adversary(ADVERSARIES[name], 0.2, norm, (0.0, 1.0))(module, x, y)
    away = torch.linalg.vector_norm(points - x, float(norm), dim=1)
    # Adv_Loss_Sign measures its length in the norm; the others stay inside up to float32.
    assert float(away.max()) <= 0.2 * (1 + 1e-4)
    assert float(points.min()) >= 0 and float(points.max()) <= 1
    with torch.no_grad():
        assert float(functional.cross_entropy(module(points), y)) > float(functional.cross_entropy(module(x), y))


def test_the_module_is_attacked_as_it_will_be_used_and_left_as_it_was():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8, 3)).train()
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    Adversary(ADVERSARIES["ifgsm"], 0.1)(module, torch.rand(5, 1, 4, 4), torch.randint(3, (5,)))
    assert [part.training for part in module] == [True, True, False, True, True] and module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_random_starts_come_from_the_global_generator():
    module, x, y = linear(0), torch.rand(6, 7), torch.randint(2, (6,))
    adversary = Adversary(adversary_named("pgd-short", steps=1, step=0.01), 0.2)
    points = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        points.append(adversary(module, x, y))
    assert torch.equal(points[0], points[1]) and not torch.equal(points[0], points[2])


def test_settings_are_taken_and_those_that_an_attack_lacks_are_refused():
    attack = adversary_named("pgd", 3, 0.5, 2)
    assert (attack.steps, attack.rule.length, attack.restarts) == (3, 0.5, 2)
    for name, settings, words in [
        ("adv-loss", {"steps": 3}, "supported by ifgsm, pgd"), ("fgsm", {"steps": 3}, "supported by ifgsm, pgd"),
        ("fgsm", {"step": 0.1}, "supported by ifgsm, pgd"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            adversary_named(name, **settings)
