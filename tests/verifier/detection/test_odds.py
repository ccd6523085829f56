"""The detector by hand, its rate on clean inputs, its files, and an attack that knows it."""

import math

import pytest
import torch

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import search_of
from verifier.attacks import ATTACKS
from verifier.detection.evasion import Evasion
from verifier.detection.files import read_detector, write_detector
from verifier.detection.odds import Noise, Odds, fit, shifts

NOISES = (Noise("normal", 0.05), Noise("sign", 0.05))


def clean(network, count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, *network.input_shape, generator=torch.Generator().manual_seed(seed))


def test_noise_has_the_moments_of_its_kind_and_belongs_to_its_seed():
    seeds = torch.arange(4)
    for kind, deviation in (("normal", 0.2), ("uniform", 0.2 / math.sqrt(3)), ("sign", 0.2)):
        drawn = Noise(kind, 0.2).at(seeds, 3, 20000)
        assert float(drawn.mean().abs()) < 0.004 and float(drawn.std()) == pytest.approx(deviation, rel=0.02)
        assert torch.equal(drawn[2:3], Noise(kind, 0.2).at(seeds[2:3], 3, 20000))
    for kind, size in (("pink", 0.1), ("normal", 0.0), ("sign", math.nan)):
        with pytest.raises(ValueError, match="noise is one of"):
            Noise(kind, size)


def test_shifts_of_a_linear_network_are_those_of_the_noise_alone():
    """f_i(x + n) - f_t(x + n) - f_i(x) + f_t(x) = (w_i - w_t) n, without a clip."""
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    network, x = chain((5,), Affine(weight)), torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    predicted, found = shifts(network, x, range(4), NOISES, 3, None)
    assert torch.equal(predicted, network.scores(x).argmax(dim=1))
    for number, noise in enumerate(NOISES):
        mean = torch.stack([noise.at(torch.arange(4), 3 * number + k, 5) for k in range(3)]).mean(dim=0)
        rows = weight.double()[None] - weight.double()[predicted][:, None]
        assert torch.allclose(found[:, number], torch.einsum("bki,bi->bk", rows, mean), atol=1e-5)
    alone = shifts(network, x[2:3], [2], NOISES, 3, None)[1]
    assert torch.allclose(alone, found[2:3], atol=1e-6)


def test_scores_are_z_scores_of_the_pair_and_the_greatest_decides():
    mean, deviation = torch.zeros(1, 3, 3).double(), torch.ones(1, 3, 3).double()
    mean[0, 1, 2], deviation[0, 1, 2] = 1.0, 0.5
    odds = Odds((Noise("sign", 0.1),), 1, None, mean, deviation, mean[0], 3.5, 0.01, "")
    # Predicted 1: class 0 scores 3, class 2 (3 - 1) / .5 = 4; its own column counts for nothing.
    found = odds.of_shifts(torch.tensor([1, 1]), torch.tensor([[[3.0, 99.0, 3.0]], [[3.0, 0.0, 2.0]]]).double())
    assert found.score.tolist() == [4.0, 3.0] and found.flagged.tolist() == [True, False]
    assert found.corrected.tolist() == [2, 1]
    broken = odds.of_shifts(torch.tensor([0]), torch.full((1, 1, 3), torch.nan).double())
    assert broken.flagged.tolist() == [True]


def test_clean_inputs_are_flagged_at_the_rate_that_was_asked_for():
    network = random_relu_network(1, (8, 16, 3))
    odds = fit(network, clean(network, 1200, 2), range(1200), NOISES, 4, 0.05, (0.0, 1.0))
    fresh = odds.scores(network, clean(network, 1000, 3), range(5000, 6000))
    # Binomial, 1000 trials: .05 +- 4 standard deviations, and that of the threshold from 600 inputs.
    assert 0.005 < float(fresh.flagged.double().mean()) < 0.05 + 4 * math.sqrt(0.05 * 0.95 * (1 / 1000 + 1 / 600))


def test_too_few_inputs_and_rates_without_a_meaning_are_refused():
    network = random_relu_network(1, (8, 16, 3))
    x = clean(network, 100, 2)
    with pytest.raises(ValueError, match="needs 200 inputs or more, got 100"):
        fit(network, x, range(100), NOISES, 2, 0.01, None)
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit(network, x, range(100), NOISES, 2, 0.0, None)
    with pytest.raises(ValueError, match=r"class \d is predicted for [01] of 2 inputs"):
        fit(network, x[:4], range(4), NOISES, 2, 0.5, None)


def test_a_file_holds_the_detector_and_others_are_refused(tmp_path):
    network = random_relu_network(1, (8, 16, 3))
    odds = fit(network, clean(network, 300, 2), range(300), NOISES, 2, 0.05, (0.0, 1.0))
    write_detector(odds, tmp_path / "d.safetensors")
    read = read_detector(tmp_path / "d.safetensors")
    x = clean(network, 20, 4)
    assert torch.equal(read.scores(network, x, range(20)).score, odds.scores(network, x, range(20)).score)
    assert (read.threshold, read.noises, read.digest) == (odds.threshold, odds.noises, network.digest)
    (tmp_path / "e.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no detector"):
        read_detector(tmp_path / "e.safetensors")


def test_evasion_finds_points_of_another_class_that_are_less_odd_than_those_of_plain_descents():
    network = random_relu_network(4, (10, 24, 4))
    x = clean(network, 600, 5)
    odds = fit(network, x, range(600), NOISES, 4, 0.05, (0.0, 1.0))
    centres = clean(network, 60, 6)
    labels = network.scores(centres).argmax(dim=1)
    search = search_of(network, centres, 0.25, labels)
    plain = ATTACKS["pgd"].run(search)
    known = Evasion(odds, steps=24).run(search)
    assert int(known.unsafe.sum()) > 20
    both = plain.unsafe & known.unsafe
    score = {name: odds.scores(network, found.points[both], range(int(both.sum()))).score.median()
             for name, found in (("plain", plain), ("known", known))}  # fmt: skip
    assert float(score["known"]) < float(score["plain"])
    # Judged by the draws that it knew: of the seeds of the search.
    evaded = {name: int((found.unsafe & ~odds.scores(network, found.points, search.seeds).flagged).sum())
              for name, found in (("plain", plain), ("known", known))}  # fmt: skip
    assert evaded["known"] >= max(evaded["plain"], 50)
