import json
import math

import numpy as np
import pytest
import torch

from encoders import write_network
from tests.networks.chains import random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from verifier import robustness
from verifier.cli import main
from verifier.metrics import adversarial_frequency, adversarial_severity
from verifier.reports.robustness import curves_of, write_curves, write_radii
from verifier.verdict import Bracket


def data_of(seed: int, count: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = torch.rand(count, n, generator=torch.Generator().manual_seed(seed)).numpy()
    return x, np.zeros(count, dtype=np.int64)


def brute_severity(epsilon: float, brackets: list[Bracket]) -> tuple[float, float]:
    """Return the extreme means over which open inputs count and where every radius lies in its bracket."""
    found = [b for b in brackets if b.upper <= epsilon]
    free = [b for b in brackets if b.lower < epsilon < b.upper]
    means = []
    for mask in range(2 ** len(free)):
        taken = found + [b for i, b in enumerate(free) if mask >> i & 1]
        if taken:
            low = np.mean([max(b.lower, 0.0) for b in taken])
            high = np.mean([min(b.upper, epsilon) for b in taken])
            means += [low, high]
    return min(means), max(means)


def test_severity_is_the_extreme_over_all_ways_to_resolve_the_open_inputs():
    random = np.random.default_rng(0)
    for _ in range(200):
        lower = random.uniform(-0.2, 1.2, size=6)
        brackets = [Bracket(-1.0 if low < 0 else low, max(low, 0.0) + random.choice([0.1, 0.3, 2.0])) for low in lower]
        found = adversarial_severity(0.7, brackets, resamples=3)
        if not any(b.lower < 0.7 for b in brackets):
            assert found.lower is None and "no input" in found.reason
            continue
        low, high = brute_severity(0.7, brackets)
        assert found.lower == pytest.approx(low)
        # Undecided inputs may also be robust: the largest mean without them is not larger than with them at epsilon.
        assert found.upper == pytest.approx(high)


def test_frequency_counts_open_inputs_on_both_sides():
    brackets = [Bracket(0.5, 0.6), Bracket(0.1, 0.2), Bracket(0.1, 0.9), Bracket(-1.0, 0.0)]
    found = adversarial_frequency(0.3, brackets)
    assert (found.lower, found.upper) == (0.5, 0.75)
    assert found.ci95[0] < 0.5 and found.ci95[1] > 0.75
    assert adversarial_frequency(0.3, []).reason == "no inputs"


def test_what_a_solver_alone_proves_stays_unresolved():
    module, data = _module(random_relu_network(5, (5, 10, 8, 3))), data_of(4, 12, 5)
    common = {"estimators": ["attack"], "clip": (0.0, 1.0)}
    checked, trusted = (robustness(module, data, 0.1, method=name, **common) for name in ("crown", "milp"))
    assert any(bracket.only_trusted_at(0.1) for bracket in trusted.brackets)
    assert (trusted.frequency, trusted.unresolved) == (checked.frequency, checked.unresolved)
    assert trusted.estimators["attack"].unresolved == checked.estimators["attack"].unresolved > 0
    assert [b.lower >= 0.1 for b in trusted.brackets] == [b.lower >= 0.1 for b in checked.brackets]


def test_an_empty_conditioning_set_is_null_with_a_reason_and_never_zero():
    safe = [Bracket(0.5, math.inf)] * 4
    severity = adversarial_severity(0.3, safe)
    assert severity.lower is None and severity.upper is None and severity.ci95 is None
    assert "no input" in severity.reason
    only_open = adversarial_severity(0.3, [Bracket(0.1, 0.9), Bracket(0.2, math.inf)])
    assert only_open.maybe_undefined and (only_open.lower, only_open.upper) == (0.1, 0.3)


def test_estimators_bound_the_truth_and_order_as_they_must():
    network = random_relu_network(4, (4, 10, 8, 3))
    module = _module(network)
    names = ("attack", "restriction", "restriction-second", "restriction-all", "fgsm")
    result = robustness(module, data_of(4, 10, 4), 0.2, estimators=names, clip=(0.0, 1.0))
    radii = {name: np.array(result.radii[name]) for name in names}
    assert (radii["restriction"] <= radii["attack"]).all()
    assert (radii["restriction-all"] <= radii["restriction-second"] * (1 + 1e-6)).all()
    for i, bracket in enumerate(result.brackets):
        assert bracket.upper == min(radii[name][i] for name in names)
        assert bracket.lower < bracket.upper
    for name in names:
        estimator = result.estimators[name]
        assert estimator.frequency <= result.frequency.lower + 1e-12
        assert sum(estimator.outcomes.values()) == 10
        assert estimator.severity is None or estimator.severity <= 0.2
    assert result.estimators["restriction"].frequency >= result.estimators["attack"].frequency
    assert 0 < result.frequency.lower <= result.frequency.upper <= 1
    assert result.correct < 10, "the reference class is the prediction: wrong labels do not matter"


def _module(network) -> torch.nn.Module:
    layers = []
    for node in network.nodes:
        op = node.op
        if op.kind == "relu":
            layers.append(torch.nn.ReLU())
            continue
        layer = torch.nn.Linear(op.weight.shape[1], op.weight.shape[0])
        layer.weight.data, layer.bias.data = op.weight.clone(), op.bias.clone()
        layers.append(layer)
    return torch.nn.Sequential(*layers).eval()


def test_the_reference_class_is_the_prediction():
    network = random_relu_network(4, (4, 10, 8, 3))
    x, _ = data_of(4, 5, 4)
    first = robustness(_module(network), (x, np.zeros(5, dtype=int)), 0.1, clip=(0.0, 1.0))
    second = robustness(_module(network), (x, np.full(5, 2)), 0.1, clip=(0.0, 1.0))
    assert first.frequency == second.frequency and first.radii == second.radii
    assert first.correct != second.correct


def test_networks_without_pieces_get_the_attack_and_programs_are_refused_by_name(tmp_path):
    path = tmp_path / "mwd.safetensors"
    write_network(random_mwd_network(1), path)
    data = data_of(1, 6, 2)
    assert list(robustness(path, data, 0.1, clip=(0.0, 1.0)).estimators) == ["attack"]
    with pytest.raises(ValueError, match=r"linear pieces.*mwd.*estimators that apply: attack"):
        robustness(path, data, 0.1, clip=(0.0, 1.0), estimators=["restriction"])
    with pytest.raises(ValueError, match="inf-norm"):
        robustness(path, data, 0.1, clip=(0.0, 1.0), norm="2")
    with pytest.raises(ValueError, match="unknown estimator nonsense"):
        robustness(path, data, 0.1, clip=(0.0, 1.0), estimators=["nonsense"])


def test_a_run_resumes_extends_and_refuses_other_settings(tmp_path):
    module, data = _module(random_relu_network(4, (4, 10, 8, 3))), data_of(4, 5, 4)
    common = {"clip": (0.0, 1.0), "out": tmp_path / "run"}
    first = robustness(module, data, 0.1, limit=3, **common)
    again = robustness(module, data, 0.1, limit=3, **common)
    assert again.radii == first.radii and again.frequency == first.frequency
    longer = robustness(module, data, 0.1, **common)
    assert longer.inputs == 5 and longer.radii["attack"][:3] == first.radii["attack"]
    wider = robustness(module, data, 0.3, **common)
    assert wider.frequency.lower >= longer.frequency.lower
    with pytest.raises(ValueError, match="alpha"):
        robustness(module, data, 0.1, alpha=0.5, **common)


def test_without_time_everything_is_unresolved_and_taken_up_again(tmp_path):
    module, data = _module(random_relu_network(4, (4, 10, 8, 3))), data_of(4, 3, 4)
    common = {"clip": (0.0, 1.0), "out": tmp_path / "run"}
    stopped = robustness(module, data, 0.1, time_limit=0.0, **common)
    assert stopped.unresolved == 1.0 and (stopped.frequency.lower, stopped.frequency.upper) == (0.0, 1.0)
    assert stopped.estimators["attack"].outcomes == {"stopped": 3}
    assert stopped.estimators["restriction"].severity is None and stopped.estimators["restriction"].reason
    assert robustness(module, data, 0.1, **common).unresolved < 1.0


def test_whole_pixels_are_whole_and_farther_than_the_optimum():
    module = _module(random_relu_network(6, (8, 12, 10, 3)))
    x, y = data_of(6, 6, 8)
    data = (np.round(x * 255).astype(np.float32) / np.float32(255), y)
    real = robustness(module, data, 0.3, clip=(0.0, 1.0))
    whole = robustness(module, data, 0.3, clip=(0.0, 1.0), levels=255, estimators=["restriction"])
    for a, b in zip(real.radii["restriction"], whole.radii["restriction"], strict=True):
        if math.isfinite(b):
            assert abs(b * 255 - round(b * 255)) < 1e-3
            assert b >= a - 1e-6 or a == 0
    assert sum(map(math.isfinite, whole.radii["restriction"])) >= 0.7 * sum(
        map(math.isfinite, real.radii["restriction"])
    )


def test_curves_count_radii_and_reach_the_frequency(tmp_path):
    module, data = _module(random_relu_network(4, (4, 10, 8, 3))), data_of(4, 8, 4)
    result = robustness(module, data, 0.2, clip=(0.0, 1.0))
    curves = curves_of(result)
    assert curves["restriction"][-1] == round(result.estimators["restriction"].frequency * 8)
    assert curves["at least"][-1] == round(result.frequency.lower * 8)
    assert curves["at most"][-1] == round(result.frequency.upper * 8)
    assert (curves["restriction"] >= curves["attack"]).all() and (curves["at most"] >= curves["at least"]).all()
    write_radii(result, tmp_path / "radii.csv")
    write_curves(result, tmp_path / "curves.csv")
    assert len((tmp_path / "radii.csv").read_text().splitlines()) == 9
    assert (tmp_path / "curves.csv").read_text().startswith("epsilon,at least,at most,attack,restriction")


def test_the_command_prints_one_object_with_the_documented_fields(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["robustness", "digits-relu", "--data", "digits", "--epsilon", "0.05", "--limit", "2", "--json"]
    assert main([*arguments, "--out", str(folder)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["command"] == "robustness" and answer["inputs"] == 2 and answer["epsilon"] == 0.05
    assert {"lower", "upper", "ci95"} <= answer["frequency"].keys()
    assert {"lower", "upper"} <= answer["severity"].keys()
    for name in ("attack", "restriction"):
        assert {"frequency", "severity", "unresolved", "median_seconds"} <= answer["estimators"][name].keys()
    assert {"radii.csv", "curves.csv", "curves.png", "records.jsonl", "results.json"} <= {
        p.name for p in folder.iterdir()
    }
    assert main([*arguments[:-1], "--out", str(folder)]) == 0
    assert "restriction" in capsys.readouterr().out


def test_another_solver_gives_the_same_radii_and_a_missing_one_names_the_installed():
    module, data = _module(random_relu_network(4, (4, 10, 8, 3))), data_of(4, 6, 4)
    common = {"clip": (0.0, 1.0), "estimators": ["restriction-second"]}
    first = robustness(module, data, 0.2, **common)
    second = robustness(module, data, 0.2, solver="cvxpy", **common)
    assert second.radii["restriction-second"] == pytest.approx(first.radii["restriction-second"], rel=1e-4)
    with pytest.raises(ValueError, match="installed: highs"):
        robustness(module, data, 0.2, solver="cvxpy:MOSEK", **common)
