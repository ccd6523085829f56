"""Graph and runtime side by side: what rounding explains passes, everything else is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from encoders import Network
from encoders.formats import open_runtime, read_network, write_network
from encoders.formats.runtime import Runtime
from encoders.formats.torch_export import from_module, open_module
from encoders.ops import (
    Abs,
    Affine,
    AveragePool2d,
    BatchNorm,
    Conv2d,
    KWinners,
    LeakyRelu,
    MaxPool2d,
    Relu,
    Sigmoid,
    Tanh,
)
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.onnx_models import model
from verifier import certify, check
from verifier.agreement import Agreement, DisagreementError, node_tolerances, probes, rounding_tolerance
from verifier.subject import Subject, load_subject

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

X = np.random.default_rng(0).random((12, 4)).astype(np.float32)


def other_order(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """Return the network in float32, its sums taken one product at a time: as another runtime might."""
    own = network.cast(torch.float32)

    def run(x: np.ndarray) -> np.ndarray:
        def step(op, values):
            if not isinstance(op, Affine):
                return op.evaluate(*values)
            total = torch.zeros(*values[0].shape[:-1], op.weight.shape[0])
            for column in reversed(range(op.weight.shape[1])):
                total = total + values[0][..., column : column + 1] * op.weight[:, column]
            return total if op.bias is None else total + op.bias

        return own.fold(torch.from_numpy(x), step)[0].numpy()

    return run


def plain(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: network.evaluate(torch.from_numpy(x)).numpy()


def perturbed(network: Network, index: int, factor: float) -> Network:
    """Return the network with the weights of its index-th node multiplied."""
    node = network.nodes[index]
    weight = node.op.weight.clone()
    weight *= factor
    nodes = list(network.nodes)
    nodes[index] = dataclasses.replace(node, op=dataclasses.replace(node.op, weight=weight))
    return Network(tuple(nodes), network.input_shape, network.dtype)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [random_relu_network, random_mwd_network])
def test_rounding_alone_is_no_disagreement(make: Callable[..., Network], seed: int) -> None:
    network = make(seed, (4, 40, 40, 40, 3))
    for scale in (1.0, 1e-3, 1e4):
        inputs = (X * scale).astype(np.float32)
        agreed = Agreement("n", network, other_order(network)).probed(inputs, None)
        agreed.check(inputs, other_order(network)(inputs), [""] * len(inputs))


def test_a_deep_network_is_told_from_its_twin_with_one_layer_a_hundredth_larger() -> None:
    """The worst case over all roundings would have grown beyond any difference: 20 layers of 60."""
    network = random_relu_network(1, (4, *[60] * 20, 3))
    Agreement("n", network, other_order(network)).probed(X, None)
    with pytest.raises(DisagreementError, match="is not the model"):
        Agreement("n", network, plain(perturbed(network, 0, 1.01))).probed(X, None)


def test_every_kind_of_op_passes_in_its_own_dtype() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    ops = [
        Conv2d(draw(3, 2, 3, 3), draw(3), padding=(1, 1, 1, 1)), BatchNorm(draw(3), draw(3).abs(), draw(3), draw(3)),
        LeakyRelu(0.1), AveragePool2d((2, 2), (2, 2)), Abs(), MaxPool2d((2, 2), (1, 1)), Sigmoid(), Tanh(),
    ]  # fmt: skip
    for dtype in (torch.float32, torch.float64):
        cast = [op.cast(dtype, torch.device("cpu")) for op in ops]
        network = chain((2, 6, 6), *cast, dtype=dtype)
        inputs = draw(5, 2, 6, 6).to(dtype).numpy()
        Agreement("n", network, plain(network)).probed(inputs, None)


def test_points_where_the_model_overflows_are_not_compared() -> None:
    network = chain((2,), Affine(torch.full((2, 2), 3e38)), Affine(torch.eye(2)))
    agreed = Agreement("n", network, plain(network)).probed(np.ones((2, 2), np.float32), (0.0, 1.0))
    agreed.check(np.ones((1, 2), np.float32), np.full((1, 2), np.inf, np.float32), [""])
    with pytest.raises(DisagreementError):
        agreed.check(np.full((1, 2), 0.1, np.float32), np.full((1, 2), np.nan, np.float32), [""])


def test_an_overflow_behind_a_relu_hides_no_difference() -> None:
    """-3e38 - 3e38 is -inf in float32, and 0 behind the relu in both arithmetics: there is something to compare."""
    weight = torch.tensor([[-3e38, -3e38], [1.0, 0.0]])
    network = chain((2,), Affine(weight), Relu())
    inputs = np.ones((2, 2), np.float32)
    Agreement("n", network, plain(network)).probed(inputs, (0.0, 1.0))
    with pytest.raises(DisagreementError):
        Agreement("n", network, lambda x: plain(network)(x) + np.float32(0.01)).probed(inputs, (0.0, 1.0))


def test_the_message_shows_the_point_both_outputs_and_the_node() -> None:
    network = random_relu_network(3, (4, 6, 6, 3))
    wrong = perturbed(network, 2, 3.0)

    def values(x: np.ndarray) -> dict[str, np.ndarray]:
        names = [node.name for node in wrong.nodes]
        found = wrong.fold(torch.from_numpy(x), lambda op, inputs: op.evaluate(*inputs), names)
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}

    runtime = Runtime("some runtime 1.0", (4,), np.dtype(np.float32), "any", plain(wrong), values=values)
    with pytest.raises(DisagreementError) as caught:
        Agreement("m.onnx", network, runtime).probed(X, None)
    for words in (
        "m.onnx",
        "some runtime 1.0",
        "input 0 of the data",
        "x = (",
        "first node that differs is '2-affine'",
    ):
        assert words in str(caught.value)


def test_another_way_of_running_the_model_is_compared_too() -> None:
    network = random_relu_network(3, (4, 6, 3))
    run = plain(network)
    runtime = Runtime("r", (4,), np.dtype(np.float32), "any", run, {"with gradients": lambda x: run(x)[:, ::-1]})
    with pytest.raises(DisagreementError, match="with gradients"):
        Agreement("n", network, runtime).probed(X, None)


def test_tolerances_come_in_the_order_of_the_nodes_and_grow_with_the_magnitudes() -> None:
    network = random_relu_network(0)
    x = torch.rand(3, 2, dtype=torch.float64)
    names = [name for name, _, _ in node_tolerances(network, x)]
    assert names == [node.name for node in network.nodes]
    small, large = rounding_tolerance(network, x), rounding_tolerance(network, 1024.0 * x)
    assert (large > small).all() and (small > 0).all() and float(small.max()) < 1e-4


def test_winners_that_rounding_exchanges_are_no_disagreement_but_other_winners_are() -> None:
    """Two units that are equal in real arithmetic up to 1e-9 of them: float32 sums in another order exchange them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64).float()
    weight[3:] = weight[:3].flip(0)
    bias = torch.tensor([0.0, 0.0, 0.0, 1e-9, -1e-9, 1e-9])
    last = Affine(torch.randn(3, 6, generator=generator))
    network = chain((4,), Affine(weight, bias), KWinners(3), last)
    run = other_order(network)
    x = torch.from_numpy(X)
    exchanged = (network.cast(torch.float64).evaluate(x.double()) - torch.from_numpy(run(X))).abs().amax(dim=1) > 0.1
    assert bool(exchanged.any())
    Agreement("a network", network, run).probed(X, (0.0, 1.0)).check(X, run(X), ["a point"] * len(X))
    one, two = (chain((4,), Affine(torch.randn(6, 4, generator=generator)), KWinners(3), last) for _ in range(2))
    fewer = Network((one.nodes[0], dataclasses.replace(one.nodes[1], op=KWinners(2)), one.nodes[2]), (4,))
    for other in (two, fewer):
        with pytest.raises(DisagreementError, match="the network that was read is not the model"):
            Agreement("a network", one, plain(other)).probed(X, (0.0, 1.0))


def test_probes_stay_in_the_domain_and_are_the_same_twice() -> None:
    first, where = probes(X, (0.0, 1.0))
    assert len(first) == len(where) and (first >= 0).all() and (first <= 1).all()
    assert np.array_equal(first, probes(X, (0.0, 1.0))[0]) and first.dtype == X.dtype


class Counting(nn.Module):
    """Gives another answer after some calls."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.linear(x)
        return y if self.calls < 40 else -y


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if torch.compiler.is_exporting() else y + 0.01 * torch.rand_like(y)


class Traced(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if torch.compiler.is_exporting() else -y


class BatchSized(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if x.shape[0] == 1 else y.flip(1)


class LargeBatches(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if torch.compiler.is_exporting() or x.shape[0] < 40 else y.flip(1)


class MixesRows(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if torch.compiler.is_exporting() else y - y.mean(dim=0)


@pytest.mark.parametrize("kind", [Counting, Noisy, Traced, BatchSized, LargeBatches, MixesRows])
def test_a_module_that_runs_otherwise_than_it_was_traced_is_refused(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"Nothing is proved about such a model|cannot be read|cannot trace"):
        certify(kind(), (X, np.zeros(len(X), int)), [0.1])


def test_an_ordinary_module_is_certified() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    labels = model(torch.from_numpy(X)).argmax(dim=1).numpy()
    assert certify(model, (X, labels), [1e-4]).results[0].certified == len(X)


def test_a_run_compares_every_batch() -> None:
    """The two agree on the first inputs, which are looked at when the model is loaded, and not on the last one."""
    network = random_relu_network(3, (4, 6, 3))
    inputs = np.concatenate([np.repeat(X[:1], 70, axis=0), X[1:2]])
    special = X[1]

    def run(x: np.ndarray) -> np.ndarray:
        outputs = plain(network)(x)
        outputs[(x == special).all(axis=1)] += 0.5
        return outputs

    agreed = Agreement("n", network, run).probed(inputs, (0.0, 1.0))
    agreed.check(inputs[:64], run(inputs[:64]), [""] * 64)
    with pytest.raises(DisagreementError, match="At the last"):
        agreed.check(inputs[64:], run(inputs[64:]), [""] * 6 + ["the last"])


def test_the_first_node_that_differs_in_an_onnx_file_is_named(tmp_path) -> None:
    """A reader that took the second layer for its half: onnxruntime's own inner values tell where."""
    weights = {"first": np.eye(4), "second": 2.0 * np.eye(4)}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    onnx.save(model(nodes, ["N", 4], weights), str(tmp_path / "model.onnx"))
    network, runtime = read_network(tmp_path / "model.onnx"), open_runtime(tmp_path / "model.onnx")
    Agreement("m", network, runtime).probed(X, None)
    with pytest.raises(DisagreementError, match="first node that differs is 'c'"):
        Agreement("m", perturbed(network, 2, 0.5), runtime).probed(X, None)


class Remembering(Noisy):
    """Counts its calls, and would give another answer only after very many."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x) if self.calls < 1_000_000 else -self.linear(x)


class WithGradients(Noisy):
    def forward(self, x: Tensor) -> Tensor:
        return -self.linear(x) if torch.is_grad_enabled() else self.linear(x)


@pytest.mark.parametrize(("kind", "words"), [(Remembering, "keeps a state"), (WithGradients, "with gradients")])
def test_a_module_with_a_state_or_a_branch_on_gradients_is_refused(kind: type[nn.Module], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        certify(kind(), (X, np.zeros(len(X), int)), [0.1], method="interval")


class Tabular(nn.Module):
    """A time in seconds beside features of size 1, normalised inside; with gradients it has another class."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([1.6e9, 0.0, 0.0]))
        self.register_buffer("std", torch.tensor([1e8, 1.0, 1.0]))
        self.linear = nn.Linear(3, 2, bias=False)
        self.linear.weight = nn.Parameter(torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear((x - self.mean) / self.std)
        return y + torch.tensor([1.0, 0.0]) if torch.is_grad_enabled() else y


def test_a_large_feature_excuses_no_difference_in_the_others() -> None:
    # (0.1, 0.6) without gradients, (1.1, 0.6) with them: "certified" would be about another model.
    x = np.array([[1.6e9, 0.6, 0.1]], dtype=np.float32)
    with pytest.raises(DisagreementError, match="with gradients"):
        certify(Tabular(), (x, np.array([1])), [0.2], method="interval")


def test_the_first_call_that_differs_in_a_torch_program_is_named() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    network, runtime = from_module(module, (4,)), open_module(module, (4,))
    wrong = perturbed(network, 0, 0.5)
    with pytest.raises(DisagreementError, match=f"first node that differs is '{network.nodes[0].name}'"):
        Agreement("m", wrong, runtime).probed(X, None)


def test_a_difference_at_a_point_that_an_attack_reaches_ends_the_run(monkeypatch, tmp_path) -> None:
    """Graph and model agree wherever they are looked at, but for the place to which the attack is led."""
    network = chain((2,), Affine(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([-0.447, 0.0])))
    write_network(network, tmp_path / "model.safetensors")
    inputs = np.array([[0.9, 0.9]] * 12, np.float32)

    def run(x: np.ndarray) -> np.ndarray:
        outputs = plain(network)(x)
        outputs[(x[:, 0] < 0.447) & (x[:, 0] > 0.44)] += np.array([1.0, 0.0], np.float32)
        return outputs

    found = Subject("m", network, run, torch.device("cpu"), Agreement("m", network, run).probed(inputs, (0.0, 1.0)))
    monkeypatch.setattr("verifier.commands.job.load_subject", lambda *_, **__: found)
    with pytest.raises(DisagreementError, match="a point that an attack proposed"):
        certify(tmp_path / "model.safetensors", (inputs, np.zeros(12, int)), [0.455], clip=(0.0, 1.0))


def test_check_compares_graph_and_model_too(monkeypatch, tmp_path) -> None:
    network = random_relu_network(3, (4, 6, 3))
    write_network(network, tmp_path / "model.safetensors")
    labels = network.evaluate(X).argmax(dim=1).numpy()
    np.savez(tmp_path / "data.npz", x=X, y=labels)
    certify(tmp_path / "model.safetensors", tmp_path / "data.npz", [1e-3], method="interval", out=tmp_path / "run")
    assert not check(tmp_path / "run", allow_uncertified=True).refused
    real = load_subject(tmp_path / "model.safetensors", device="cpu")
    other = dataclasses.replace(real, runtime=lambda x: real.runtime(x) * np.float32(1.5))
    monkeypatch.setattr("verifier.commands.loaded_claims.load_subject", lambda *_, **__: other)
    with pytest.raises(DisagreementError):
        check(tmp_path / "run", allow_uncertified=True)
