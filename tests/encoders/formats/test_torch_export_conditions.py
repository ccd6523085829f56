"""A module is traced as it runs, or refused: gradients, training, hooks, copies, batches."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.formats.errors import ModelFileError
from encoders.formats.torch_export import from_module, open_module
from encoders.limits import Limits

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Function(nn.Module):
    def __init__(self, function: Callable[[nn.Linear, Tensor], object]) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> object:
        return self.function(self.linear, x)


class NotCopied(Function):
    def __deepcopy__(self, memory: object) -> nn.Module:
        raise TypeError("holds a lock")


class WithHistory(Function):
    def __init__(self) -> None:
        super().__init__(lambda linear, x: linear(x))
        self.scaled = self.linear.weight * 2


def assert_same_values(model: nn.Module) -> None:
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    found = from_module(model, (3,)).evaluate(x)
    assert np.allclose(open_module(model, (3,))(x.numpy()), found, rtol=0, atol=1e-6)


def test_a_module_that_asks_for_gradients_is_traced_as_it_is_replayed() -> None:
    assert_same_values(Function(lambda linear, x: linear(x) * (2.0 if torch.is_grad_enabled() else 1.0)))


def test_hooks_and_parametrizations_that_are_read_count() -> None:
    model = Function(lambda linear, x: linear(x))
    model.linear.register_forward_hook(lambda module, given, result: result * 2)
    assert_same_values(model)
    doubled = Function(lambda linear, x: linear(x))
    twice = nn.Module()
    twice.forward = lambda weight: weight * 2  # type: ignore[method-assign]
    nn.utils.parametrize.register_parametrization(doubled.linear, "weight", twice)
    assert_same_values(doubled)


def alone_refused(x: Tensor) -> None:
    # len(x) would be a number of the trace.
    if x.shape[0] == 1:
        raise ValueError("needs a batch")


@pytest.mark.parametrize(
    "function",
    [
        lambda linear, x: (alone_refused(x), linear(x.relu()))[1],
        lambda linear, x: (alone_refused(x), linear(x.flip(1)).view(x.shape[0], 3, 1).sum(2))[1],
    ],
)
def test_a_module_that_does_not_take_one_input_alone_is_traced_with_two(function: Callable[..., object]) -> None:
    model = Function(function)
    assert_same_values(model)
    x = torch.randn(1, 3)
    assert np.allclose(open_module(model, (3,))(x.numpy()), from_module(model, (3,)).evaluate(x), rtol=0, atol=1e-6)


def test_a_module_that_mixes_a_batch_of_two_is_refused() -> None:
    model = Function(lambda linear, x: (alone_refused(x), linear(x) - linear(x).mean(0))[1])
    with pytest.raises(ModelFileError, match="acts on the batch axis"):
        from_module(model, (3,))


def test_shared_and_transposed_weights_are_read_by_value() -> None:
    model = Function(lambda linear, x: functional.linear(linear(linear(x)), linear.weight.t()))
    model.linear.weight.data = model.linear.weight.data.t()
    assert_same_values(model)


REFUSED: dict[str, nn.Module] = {
    "holds a lock": NotCopied(lambda linear, x: linear(x)),
    "cannot be copied": WithHistory(),
    "no data": nn.Linear(3, 2, device="meta"),
    "inside a dict": Function(lambda linear, x: {"logits": linear(x)}),
    "inside a tuple": Function(lambda linear, x: (linear(x),)),
    "aten.rand": Function(lambda linear, x: linear(x) + torch.rand(3)),
    "aten.bernoulli": Function(lambda linear, x: linear(x) * torch.bernoulli(torch.full((3,), 0.5))),
    "train = True": Function(lambda linear, x: functional.dropout(linear(x), 0.5)),
    "aten.rrelu": Function(lambda linear, x: functional.rrelu(linear(x), training=True)),
    "dtype torch.complex64": Function(lambda linear, x: (linear(x) * torch.tensor(1j)).real),
    "aten.floor_divide": Function(lambda linear, x: linear(x) // 2),
    "aten.fmax": Function(lambda linear, x: torch.fmax(linear(x), x)),
    "aten._weight_norm": nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    "wrap_with_autocast": Function(lambda linear, x: in_half(linear, x)),
}


def in_half(linear: nn.Linear, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return linear(x)


@pytest.mark.parametrize("word", REFUSED)
def test_what_has_no_one_value_or_no_reading_is_refused_by_name(word: str) -> None:
    with pytest.raises(ModelFileError) as error:
        from_module(REFUSED[word], (3,))
    assert word in str(error.value)


def test_a_module_that_branches_on_the_batch_is_run_in_batches_so_that_the_comparison_sees_it() -> None:
    model = Function(lambda linear, x: linear(x) if len(x) == 1 else -linear(x))
    runtime, x = open_module(model, (3,)), np.ones((2, 3), np.float32)
    assert runtime.batch == "any" and np.allclose(runtime(x)[:1], -runtime(x[:1]))


def test_a_module_that_fails_is_refused_by_what_it_says() -> None:
    def fail(linear: nn.Linear, x: Tensor) -> Tensor:
        raise OSError("no such device")

    with pytest.raises(ModelFileError, match="no such device"):
        open_module(Function(fail), (3,))
    with pytest.raises(ModelFileError, match="no such device"):
        from_module(Function(fail), (3,))


def test_a_shape_that_cannot_be_is_refused() -> None:
    with pytest.raises(ModelFileError, match=r"with an input of shape \(1, -3\)"):
        from_module(Function(lambda linear, x: linear(x)), (-3,))


def test_the_runtime_returns_memory_of_its_own() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.result = torch.zeros(1, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.result = self.result.new_zeros(x.shape) if self.result.shape != x.shape else self.result
            return self.result.copy_(x)

    runtime = open_module(Buffered(), (3,))
    first = runtime(np.ones((1, 3), np.float32))
    runtime(np.zeros((1, 3), np.float32))
    assert (first == 1).all()


def large_constant(linear: nn.Linear, x: Tensor) -> Tensor:
    return linear(x) + (torch.ones(1).expand(2**40) * 1.0)[:3]


def test_constants_and_inputs_are_measured_before_they_are_made() -> None:
    with pytest.raises(ModelFileError, match="allow constant_bytes="):
        from_module(Function(large_constant), (3,))
    with pytest.raises(ModelFileError, match="allow input_values="):
        from_module(Function(lambda linear, x: x), (2**40, 3))
    # Four times three constants of 12 bytes; copies of the stored 48 bytes are free twice.
    model = Function(lambda linear, x: linear(x) + sum((torch.ones(3) + torch.ones(3) for _ in range(4)), x))
    assert_same_values(model)
    with pytest.raises(ModelFileError, match="allow constant_bytes="):
        from_module(model, (3,), Limits(constant_bytes=8))


def test_numbers_are_rounded_as_torch_rounds_them() -> None:
    model = Function(lambda linear, x: (x * 0.1 + 16777217) / torch.tensor(0.3, dtype=torch.float64) - 2**60 / 7)
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(from_module(model, (3,)).evaluate(x), model(x))
