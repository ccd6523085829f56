"""Whatever stands behind the scores of a classifier, `certify` answers as for the scores themselves."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoders import Network, Node, write_network
from encoders.ops import Affine, Sigmoid
from tests.networks.chains import chain, random_relu_network
from verifier import attack, certify, check, compare, robustness, show
from verifier.reports.show import shown

RADII = [0.05]
X = torch.rand(10, 4, generator=torch.Generator().manual_seed(0))


class Ending(nn.Module):
    """A module with something behind its scores."""

    def __init__(self, scores: nn.Module, end) -> None:
        super().__init__()
        self.scores, self.end = scores, end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.scores(x))


def scores_of(classes: int) -> nn.Sequential:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, classes)).eval()
    with torch.no_grad():
        module[2].bias -= module(X).mean(dim=0)
    return module


def with_zero(module: nn.Sequential) -> nn.Sequential:
    """Return the scores (0, z) of a module with the output z."""
    first, relu, last = module
    both = nn.Linear(10, 2)
    with torch.no_grad():
        both.weight.copy_(torch.cat([torch.zeros(1, 10), last.weight]))
        both.bias.copy_(torch.cat([torch.zeros(1), last.bias]))
    return nn.Sequential(first, relu, both).eval()


def counts(model: nn.Module, labels: np.ndarray) -> list[tuple[int, int, int]]:
    result = certify(model, (X.numpy(), labels), RADII, method="auto", device="cpu", out=None, clip=(0.0, 1.0))
    return [(row.certified, row.falsified, row.open) for row in result.results]


ENDS = {
    "softmax": lambda y: y.softmax(1),
    "log_softmax": lambda y: torch.log_softmax(y, 1),
    "sigmoid": torch.sigmoid,
    "arg-max": lambda y: y.argmax(1),
}


@pytest.mark.parametrize("end", ENDS)
def test_answers_are_those_of_the_scores(end: str) -> None:
    scores = scores_of(3)
    labels = scores(X).argmax(dim=1).numpy()
    assert counts(Ending(scores, ENDS[end]).eval(), labels) == counts(scores, labels)


@pytest.mark.parametrize("end", [nn.Identity(), nn.Sigmoid(), nn.Flatten(0)])
def test_one_output_is_a_classifier_of_two_classes(end: nn.Module) -> None:
    one = scores_of(1)
    labels = (one(X)[:, 0] > 0).long().numpy()
    assert 0 < labels.sum() < len(labels)
    assert counts(Ending(one, end).eval(), labels) == counts(with_zero(one), labels)


@pytest.fixture
def binary(tmp_path):
    """Return the file of a network of one sigmoid output, and one of data."""
    logits = random_relu_network(5, (4, 8, 1))
    last = Node("probability", Sigmoid(), (logits.output.name,))
    network = Network((*logits.nodes, last), (4,))
    write_network(network, tmp_path / "binary.safetensors")
    np.savez(tmp_path / "data.npz", x=X.numpy(), y=(logits.evaluate(X)[:, 0] > 0).long().numpy())
    return tmp_path / "binary.safetensors", tmp_path / "data.npz"


def test_every_verb_takes_one_output_and_says_how_it_is_read(binary, tmp_path) -> None:
    model, data = binary
    common = {"device": "cpu", "limit": 6, "clip": (0.0, 1.0)}
    results = [
        certify(model, data, RADII, method="exact", out=tmp_path / "run", **common),
        attack(model, data, "pgd", 0.1, out=None, **common),
        robustness(model, data, 0.1, out=None, **common),
        compare(model, data, 0.1, methods=["interval", "crown"], out=None, **common),
    ]
    for result in results:
        assert "class 1 where it is above 0.5, else class 0" in json.loads(json.dumps(result.to_json()))["classes"]
    assert check(tmp_path / "run").refused == ()
    said = " ".join(str(part) for part in shown(show(model)))
    assert "class 1 where it is above 0.5" in said and results[0].digest in said
    assert show(model).to_json()["classes"] == results[0].classes


def test_outputs_that_saturate_are_compared_before_the_sigmoid() -> None:
    # sigmoid(40) and sigmoid(41) are 1.0 in float32: the model ties, and gives class 0; in real arithmetic 1 is above.
    bias = torch.tensor([40.0, 41.0])
    network = chain((1,), Affine(torch.zeros(2, 1), bias), Sigmoid())
    assert network.evaluate(torch.zeros(1, 1)).tolist() == [[1.0, 1.0]]
    module = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid()).eval()
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.copy_(bias)
    x = np.zeros((1, 1), np.float32)
    result = certify(module, (x, np.array([0])), [0.1], device="cpu", out=None)
    assert (result.correct, result.results[0].falsified) == (1, 1)
    # Of (41, 40) class 0 wins in real arithmetic; the tie is one of the execution alone, and falsifies nothing.
    with torch.no_grad():
        module[0].bias.copy_(bias.flip(0))
    result = certify(module, (x, np.array([0])), [0.1], device="cpu", out=None)
    assert (result.correct, result.results[0].certified) == (1, 1)


def test_exactly_on_the_threshold_is_a_counterexample() -> None:
    module = nn.Linear(1, 1, bias=False).eval()
    with torch.no_grad():
        module.weight.fill_(1.0)
    inputs = np.array([[0.0], [-0.25], [0.25]], np.float32)
    result = certify(module, (inputs, np.array([0, 0, 1])), [0.2, 0.25], device="cpu", out=None)
    assert [(row.certified, row.falsified) for row in result.results] == [(2, 1), (0, 3)]
