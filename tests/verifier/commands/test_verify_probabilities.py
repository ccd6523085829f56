"""Properties about probabilities keep the softmax; those about the order of classes do not need it."""

import math
from pathlib import Path

import pytest
import torch

from encoders import Network, Node, write_network
from encoders.ops import Softmax
from encoders.questions import always_largest, output_within
from tests.networks.chains import random_relu_network
from verifier import verify
from verifier.verdict import Verdict

CENTRE = torch.full((4,), 0.5, dtype=torch.float64)


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Network]:
    scores = random_relu_network(2, (4, 8, 3))
    network = Network((*scores.nodes, Node("shares", Softmax(0), (scores.output.name,))), (4,))
    write_network(network, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors", network


@pytest.mark.parametrize("method", ["interval", "crown", "auto"])
def test_a_share_that_may_not_fall_is_proved_near_and_refuted_far(model: tuple[Path, Network], method: str) -> None:
    path, network = model
    share = float(network.evaluate(CENTRE[None])[0, 1])
    ends = [-math.inf, share - 0.01, -math.inf], [math.inf] * 3
    near = verify(path, output_within(CENTRE - 1e-4, CENTRE + 1e-4, *ends), method=method).properties[0]
    assert near.verdict is Verdict.UNSAT
    far = verify(path, output_within(CENTRE - 0.5, CENTRE + 0.5, *ends), method=method).properties[0]
    if method == "interval":
        assert far.verdict is Verdict.UNKNOWN
    else:
        assert far.verdict is Verdict.SAT and far.witness is not None
        assert float(far.witness.outputs[1]) <= share - 0.01
        assert float(network.cast(torch.float64).evaluate(far.witness.point.double()[None])[0, 1]) <= share - 0.01


def test_the_order_is_decided_before_the_softmax(model: tuple[Path, Network]) -> None:
    path, network = model
    winner = int(network.evaluate(CENTRE[None]).argmax())
    # `exact` takes relu networks, and no softmax.
    asked = always_largest(CENTRE - 1e-4, CENTRE + 1e-4, winner, 3)
    assert verify(path, asked, method="exact").properties[0].verdict is Verdict.UNSAT
    with pytest.raises(ValueError, match="softmax"):
        verify(path, output_within(CENTRE - 1e-4, CENTRE + 1e-4, [0.0] * 3, [0.9] * 3), method="exact")
