import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from encoders import Network, Node
from encoders.formulations.restrict import freeze
from encoders.network import INPUT
from encoders.ops import Abs, Add, Affine, Conv2d, LeakyRelu, MaxPool2d, Reshape, Sigmoid
from tests.networks.chains import chain, random_relu_network
from tests.oracles.constraints import Rows, encode_label, variables_of
from tests.seeds import few_or

F64 = torch.float64
TOLERANCE = 1e-9


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def networks(seed: int) -> list[Network]:
    last = Affine(random(3, 8, seed=seed + 3))
    convolution = Conv2d(random(2, 1, 2, 2, seed=seed), random(2, seed=seed + 1))
    residual = (
        Node("a", Affine(random(4, 4, seed=seed)), (INPUT,)),
        Node("b", Abs(), ("a",)),
        Node("c", Add(), ("b", INPUT)),
        Node("d", LeakyRelu(0.2), ("c",)),
        Node("e", Affine(random(3, 4, seed=seed + 2)), ("d",)),
    )
    return [
        random_relu_network(seed, (3, 4, 3)).cast(F64),
        chain((1, 4, 4), convolution, MaxPool2d((2, 2), (1, 1)), Reshape((8,)), last, dtype=F64),
        Network(residual, (4,), F64),
    ]  # fmt: skip


@pytest.mark.parametrize("count", few_or(10, 40))
def test_the_system_of_a_label_holds_exactly_where_the_label_is_among_the_best(count):
    """Theorem 1 of the paper, with ties: on three networks a seed, and nowhere off the graph of the network."""
    for seed in range(count):
        for network in networks(seed):
            x = random(2, *network.input_shape, seed=seed)
            for point in x.split(1):
                v, scores = variables_of(network, point), network.evaluate(point)[0]
                for label in range(3):
                    system = encode_label(network, label)
                    is_best = bool(scores[label] >= scores.max())
                    assert (system.violation(v) <= TOLERANCE) == is_best
                    moved = v.copy()
                    moved[-1 - seed % 3] += 0.1
                    assert system.violation(moved) >= 0.04


def test_at_a_tie_both_labels_are_feasible():
    network = chain((2,), Affine(torch.eye(2, dtype=F64)), dtype=F64)
    v = variables_of(network, torch.tensor([[0.3, 0.3]], dtype=F64))
    assert encode_label(network, 0).violation(v) == encode_label(network, 1).violation(v) == 0.0


def test_a_restriction_holds_only_where_the_system_does():
    held = 0
    for seed in range(30):
        for network in networks(seed):
            x = random(1, *network.input_shape, seed=seed)
            label = int(network.evaluate(x).argmax())
            system = encode_label(network, label)
            restricted = system.restrict(variables_of(network, x))
            assert all(isinstance(part, Rows) for part in restricted.parts)
            assert restricted.violation(variables_of(network, x)) <= TOLERANCE
            frozen = freeze(network, x, fuse=False)
            for near in (x + 0.3 * random(20, *network.input_shape, seed=seed + 9)).split(1):
                v = variables_of(network, near)
                if restricted.violation(v) <= TOLERANCE:
                    held += 1
                    assert system.violation(v) <= TOLERANCE
                    assert bool(frozen.holds(near, 1e-9).all())
    assert held > 100


def test_the_program_over_the_paper_s_variables_has_the_optimum_of_the_frozen_network():
    """The same LP written from the constraint language: an independent check of the reduced rows."""
    from tests.networks.restriction_questions import ask
    from tests.oracles.restriction_optimum import brute_force

    for seed in range(12):
        network = networks(seed)[seed % 3]
        x = torch.rand(1, *network.input_shape, dtype=F64, generator=torch.Generator().manual_seed(seed))
        order = network.evaluate(x)[0].argsort(descending=True)
        system = encode_label(network, int(order[1]), (0.0, 1.0)).restrict(variables_of(network, x))
        n, columns = x.numel(), system.parts[0].A.shape[1]
        ball = np.hstack([np.vstack([np.eye(n), -np.eye(n)]), np.zeros((2 * n, columns - n)), -np.ones((2 * n, 1))])
        flat = x.flatten().numpy()
        upper, upper_ends = [ball], [np.concatenate([flat, -flat])]
        equal, equal_ends = [], []
        for part in system.parts:
            rows = np.hstack([part.A.toarray(), np.zeros((len(part.b), 1))])
            (equal if part.equal else upper).append(rows if part.equal else -rows)
            (equal_ends if part.equal else upper_ends).append(-part.b if part.equal else part.b)
        found = linprog(
            np.append(np.zeros(columns), 1.0), np.vstack(upper), np.concatenate(upper_ends), np.vstack(equal),
            np.concatenate(equal_ends), [*[(None, None)] * columns, (0, 1)],
        )  # fmt: skip
        expected = float(found.fun) if found.status == 0 else math.inf
        question = ask(network, x, int(order[1]))
        if not any(isinstance(node.op, MaxPool2d) for node in network.nodes):
            assert brute_force(question) == pytest.approx(expected, abs=1e-6), seed
        else:
            assert brute_force(question) <= expected + 1e-6


def test_an_op_without_pieces_is_named():
    network = chain((2,), Affine(torch.eye(2, dtype=F64)), Sigmoid(), dtype=F64)
    with pytest.raises(ValueError, match="'1-sigmoid'"):
        encode_label(network, 0)
