"""Signs of masked gradients: counted as defined, seen where gradients are masked, and not where they are not."""

import numpy as np
import pytest
import torch

from encoders import Network, write_network
from encoders.ops import Affine, KWinners, Relu
from encoders.region import BallRegion
from tests.networks.chains import chain
from verifier import attack
from verifier.attacks import Search, masking
from verifier.attacks.masking import Signs, masking_signs
from verifier.budget import Budget
from verifier.commands.attack_masking import signs_in_words

INPUTS = 40


def networks() -> dict[str, Network]:
    """Return a network and what hides its gradients: winners, a loud output, units that are dead around the domain."""
    generator = torch.Generator().manual_seed(0)
    first, bias = torch.randn(200, 20, generator=generator) / 20**0.5, torch.randn(200, generator=generator) / 4
    last = torch.randn(3, 200, generator=generator)
    return {
        "plain": chain((20,), Affine(first, bias), Relu(), Affine(last)),
        "winners": chain((20,), Affine(first, bias), KWinners(4), Affine(last)),
        "loud": chain((20,), Affine(first, bias), Relu(), Affine(100 * last)),
        "dead": chain((20,), Affine(first, bias - 100), Relu(), Affine(last, torch.tensor([1.0, 0.0, 0.0]))),
    }


def inputs() -> torch.Tensor:
    return torch.rand(INPUTS, 20, generator=torch.Generator().manual_seed(1))


def search_of(network: Network, epsilon: float) -> Search:
    x, radius = inputs(), torch.full((INPUTS,), epsilon, dtype=torch.float64)
    classes = network.evaluate(x).argmax(dim=1)
    return Search(network, BallRegion(x.double(), radius, (0.0, 1.0)), classes, tuple(range(INPUTS)), Budget())


def test_signs_are_where_gradients_are_masked_and_not_elsewhere():
    whole = torch.ones(INPUTS, dtype=torch.float64)
    found = {name: masking_signs(search_of(network, 0.03), whole) for name, network in networks().items()}
    assert found["plain"] == Signs(INPUTS, 0, 0, 0, 0, 0, 0, 0)
    assert found["winners"].outputs >= 2 and found["winners"].saturated == 0
    wide = {
        name: int(masking._terraces(search_of(network, 0.3), inputs()).sum()) for name, network in networks().items()
    }
    assert wide.pop("winners") >= 3 and set(wide.values()) == {0}
    assert found["loud"].saturated > INPUTS / 3 and found["loud"].outputs == found["loud"].vanishing == 0
    assert found["dead"].vanishing == found["dead"].unbounded == INPUTS
    assert masking_signs(search_of(networks()["plain"], 0.03), None).unbounded is None


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_slopes_that_turn_are_no_terraces_and_jumps_are(norm):
    """Margins over [0, 1] that fall first: a wave of eight steep teeth, and one of nine lines that wins in turn."""
    numbers = torch.arange(16.0)
    # relu(16 x - k): slopes of the margin -1600, 1600, -1600, ...
    turns = torch.where(numbers % 2 == 0, -200.0, 200.0).index_fill(0, torch.tensor([0]), -100.0)
    wave = chain((1,), Affine(torch.full((16, 1), 16.0), -numbers), Relu(), Affine(torch.stack([turns, 0 * turns])))
    # Line j, 1 + (j + 1) x - j (j + 1) / 16, is the largest from j / 8 on; it counts once or five times.
    j = torch.arange(9.0)
    counts = torch.where(j % 2 == 0, -1.0, -5.0)
    lines = chain(
        (1,), Affine((j + 1)[:, None], 1 - j * (j + 1) / 16), KWinners(1), Affine(torch.stack([counts, 0 * j]))
    )
    x, radius, classes = torch.zeros(1, 1), torch.ones(1, dtype=torch.float64), torch.zeros(1).long()
    for network, expected in ((wave, False), (lines, True)):
        search = Search(network, BallRegion(x.double(), radius, (-1.0, 1.0), norm), classes, (0,), Budget())
        moves = -network.evaluate(torch.linspace(0, 1, 200)[:, None]).diff(dim=1)[:, 0].diff()
        assert int(((moves[:-1] < 0) & (moves[1:] > 0)).sum()) >= masking.TERRACES
        assert masking._terraces(search, x).tolist() == [expected]


def test_counts_compare_input_by_input(monkeypatch):
    """Broken by many steps: 0 to 4; one: 4 to 7; outputs: 6 to 11; in twice the radius: 0, 1; anywhere: all but 9."""
    asked = []

    def broken(attack, search):
        rows = torch.arange(INPUTS)
        asked.append((type(attack).__name__, attack is masking.ONE, float(search.region.radius[0])))
        answers = {
            1: rows < 5, 2: (rows >= 4) & (rows < 8), 3: rows < 2, 4: (rows >= 6) & (rows < 12), 5: rows != 9,
        }  # fmt: skip
        return answers[len(asked)]

    monkeypatch.setattr(masking, "_broken", broken)
    signs = masking_signs(search_of(networks()["plain"], 0.03), torch.ones(INPUTS, dtype=torch.float64))
    # Of one step 5 to 7 are new, and 0 to 3 are missing: none. Outputs: 8 to 11 new, 0 to 5 missing: none.
    assert (signs.one_step, signs.outputs, signs.larger, signs.unbounded) == (0, 0, 3, 1)
    assert asked == [
        ("Descent", False, 0.03), ("Descent", True, 0.03), ("Descent", False, 0.06), ("Square", False, 0.03),
        ("Descent", False, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("weaker", "stronger", "surplus"), [([1, 1, 0], [0, 0, 1], 1), ([1, 0, 0], [0, 1, 1], 0)])
def test_a_surplus_is_what_the_weaker_breaks_more(weaker, stronger, surplus):
    assert masking._surplus(torch.tensor(weaker).bool(), torch.tensor(stronger).bool()) == surplus


def test_words_come_from_two_inputs_and_a_twentieth_on():
    assert signs_in_words(Signs(50, 2, 2, 2, 2, 2, 2, 2)) == () == signs_in_words(Signs(4, 1, 1, 1, 1, 1, None, 1))
    (words,) = signs_in_words(Signs(50, 0, 0, 0, 3, 0, None, 0))
    assert "200 outputs break 3 more than descents of 20 steps of the first 50 inputs" in words
    assert len(signs_in_words(Signs(50, 3, 3, 3, 3, 3, 3, 3))) == 7


def test_auto_reports_them_and_other_attacks_do_not(tmp_path):
    x = inputs()
    results = {}
    for name, network in networks().items():
        write_network(network, tmp_path / f"{name}.safetensors", {})
        data = (x.numpy(), network.evaluate(x).argmax(dim=1).numpy())
        for attack_name in ("auto", "fgsm") if name == "winners" else ("auto",) if name != "dead" else ():
            found = attack(tmp_path / f"{name}.safetensors", data, attack_name, 0.03, clip=(0.0, 1.0), out=None)
            results[name, attack_name] = found
    signs = {key: [w for w in found.warnings if "sign of masked" in w] for key, found in results.items()}
    assert signs["plain", "auto"] == signs["winners", "fgsm"] == [] and len(signs["winners", "auto"]) >= 1
    assert "gradient of its loss is exactly 0" in signs["loud", "auto"][0]
    told = {key: found.to_json().get("masking") for key, found in results.items()}
    assert told["winners", "fgsm"] is None and told["winners", "auto"]["outputs"] >= 2
    assert told["plain", "auto"]["inputs"] == INPUTS and np.sum([*told["plain", "auto"].values()]) == INPUTS
