"""Plans: rates, shares of pseudogradients, and when to stop."""

import pytest
import torch
from torch import nn

from encoders.layers import Mwd
from verifier.training.architectures import squared_error
from verifier.training.plan import Plan
from verifier.training.regimes import Clean
from verifier.training.trainer import Trainer


def test_pseudogradients_give_way_to_true_ones():
    """Multiplied by .9 after each epoch in the published code of Agrawal et al. (2019); or switched off."""
    decaying = Plan(5, pseudo_share=0.8, pseudo_decay=0.9)
    assert [decaying.pseudo_share_in(epoch) for epoch in range(3)] == pytest.approx([0.8, 0.72, 0.648])
    switched = Plan(5, pseudo_epochs=2)
    assert [switched.pseudo_share_in(epoch) for epoch in range(4)] == [1.0, 1.0, 0.0, 0.0]


def test_the_share_of_an_epoch_is_that_of_the_layers():
    torch.manual_seed(0)
    module, shares = nn.Sequential(Mwd(3, 2)), []
    optimiser = torch.optim.Adadelta(module.parameters())
    data = (torch.rand(24, 3), torch.arange(24) % 2)
    plan = Plan(3, batch=30, pseudo_decay=0.5)
    trainer = Trainer(module, Clean(squared_error), optimiser, data, plan, lambda trained: 0.0)
    trainer.run(progress=lambda done, total: shares.append(module[0].pseudo_share))
    assert shares == [1.0, 0.5, 0.25]


def test_patience_counts_from_where_the_radius_has_risen():
    plan = Plan(20, patience=2, settled=0.5)
    assert not plan.is_over([0.3] * 11, 0) and plan.is_over([0.3] * 12, 0)
    assert not plan.is_over([0.3] * 12, 11)
    assert Plan(3).is_over([0.1, 0.2, 0.3], 2) and not Plan(3).is_over([0.1], 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"pseudo_decay": 1.5}, "pseudo_decay"), ({"pseudo_share": -0.1}, "pseudo_share"), ({"batch": 0}, "batch")],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Plan(3, **settings)
