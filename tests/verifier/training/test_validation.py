"""What chooses an epoch: intervals prove no more than margins bounded backwards, and these no more than holds."""

import torch

from verifier.training.adversaries import Adversary
from verifier.training.architectures import ARCHITECTURES
from verifier.training.validation import JUDGE, Score, bounded_backwards

DOMAIN = (0.0, 1.0)


def test_scores_of_bounds_are_ordered_and_below_that_under_attack():
    torch.manual_seed(0)
    module = ARCHITECTURES["cnn-small"].make((1, 8, 8), (2, 3, 6), (), 4).eval()
    x = torch.rand(64, 1, 8, 8)
    with torch.no_grad():
        # Without what all inputs share all of them have one class, which nothing changes.
        module[-1].bias -= module(x).mean(dim=0)
    y = module(x).argmax(dim=1)
    assert bounded_backwards(module, x[:2], y[:2])
    gained = 0.0
    for epsilon in (0.0005, 0.001, 0.002, 0.005):
        ends = Score(x, y, epsilon, DOMAIN)(module)
        both = Score(x, y, epsilon, DOMAIN, backward=True)(module)
        attacked = Score(x, y, 0.0, DOMAIN, Adversary(JUDGE, epsilon, "inf", DOMAIN))(module)
        assert ends <= both <= attacked
        gained = max(gained, both - ends)
    assert gained > 0.1


def test_networks_with_max_pools_are_judged_by_intervals_alone():
    module = ARCHITECTURES["lenet"].make((1, 16, 16), (8,), (), 4)
    x = torch.rand(2, 1, 16, 16)
    assert not bounded_backwards(module, x, torch.zeros(2, dtype=torch.long))
    assert module.training
