"""Calls in place: read as the module runs, or refused by name where somebody else sees the memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders import read_network
from encoders.formats import open_runtime
from encoders.formats.errors import ModelFileError
from encoders.formats.torch_export import from_module
from encoders.formats.torch_program import convert

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

Forward = Callable[["Layer", Tensor], object]


class Layer(nn.Module):
    """One linear map, whose first output is 0 and whose second is the first input."""

    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function = function
        self.a = nn.Linear(2, 2, bias=False)
        self.a.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def then(write: Callable[[Tensor], object]) -> Forward:
    """Return a forward function that writes to the layer's output and returns that."""

    def forward(layer: Layer, x: Tensor) -> Tensor:
        y = layer.a(x)
        write(y)
        return y

    return forward


def with_gradients(layer: Layer, x: Tensor) -> Tensor:
    y = layer.a(x)
    with torch.enable_grad():
        y.mul_(2.0)
    return y


def counting(layer: Layer, x: Tensor) -> Tensor:
    layer.count += 1
    return layer.a(x) + layer.count


def written_before_it_is_aliased(layer: Layer, x: Tensor) -> Tensor:
    y = layer.a(x)
    z = y.t()
    y.add_(1.0)
    return z.t() + y


def discarded_statistics(layer: Layer, x: Tensor) -> Tensor:
    """Batch norm in training mode writes to the statistics, which its schema does not say."""
    rows = layer.a(x).unsqueeze(2).expand(-1, 2, 2)
    functional.batch_norm(rows, layer.count, torch.ones(2), training=True)
    return layer.a(x) + layer.count


def second_name(layer: Layer, x: Tensor) -> Tensor:
    y, z = layer.a(x), x.clone()
    z.set_(y)
    z.mul_(2.0)
    return y


WRITTEN: dict[str, Forward] = {
    "setitem": then(lambda y: y.__setitem__((slice(None), 0), 0.5)),
    "narrow": then(lambda y: y.narrow(1, 0, 1).mul_(2.0)),
    "T": then(lambda y: y.T.add_(1.0)),
    "select": then(lambda y: y.select(1, 0).relu_()),
    "diagonal": then(lambda y: y.diagonal().add_(1.0)),
    "split": then(lambda y: y.split(1, 1)[0].add_(1.0)),
    "chunk": then(lambda y: y.chunk(2, 1)[0].add_(1.0)),
    "unbind": then(lambda y: y.unbind(1)[0].sub_(1.0)),
    "view": then(lambda y: y.view(-1).neg_()),
    "unsqueeze": then(lambda y: y.unsqueeze(1).neg_()),
    "expand": then(lambda y: y.expand(1, 2).neg_()),
    "as_strided": then(lambda y: y.as_strided((1,), (1,)).add_(1.0)),
    "detach": then(lambda y: y.detach().add_(1.0)),
    "dropout": then(lambda y: functional.dropout(y, 0.5, False).add_(1.0)),
    "reshape": then(lambda y: y.reshape(-1).add_(1.0)),
    "index_put": then(lambda y: y.index_put_((torch.tensor([0]),), torch.tensor(0.5))),
    "copy": then(lambda y: y[:, :1].copy_(torch.tensor([[0.5]]))),
    "masked_fill": then(lambda y: y.masked_fill_(y > 0, 0.5)),
    "fill": then(lambda y: y.fill_(0.5)),
    "zero": then(lambda y: y[:, 1:].zero_()),
    "alpha": then(lambda y: y.add_(torch.ones(2), alpha=2)),
    "out": then(lambda y: torch.add(y, 1.0, out=y)),
    "out of a view": then(lambda y: torch.add(y[:, 0], 1.0, out=y[:, 0])),
    "a weight": lambda layer, x: layer.a(x) + layer.count.view(-1).add_(1.0),
    "a counter": counting,
    "the input": lambda layer, x: x.mul_(2.0) + layer.a(x),
    "an older name": written_before_it_is_aliased,
    "discarded statistics": discarded_statistics,
    "a second name": second_name,
    "a region with gradients": with_gradients,
    "random numbers": then(lambda y: y.normal_()),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_write_that_somebody_else_sees_is_refused_by_name(name: str, tmp_path: Path) -> None:
    model = Layer(WRITTEN[name]).eval()
    with pytest.raises(ModelFileError, match=r"node '\w+' \((aten\.|wrap)"):
        from_module(model, (2,))
    with torch.no_grad():
        program = torch.export.export(model, (torch.zeros(1, 2),), strict=False)
    with pytest.raises(ModelFileError, match=r"node '\w+' \((aten\.|wrap)"):
        convert(program, "program")
    if name != "a region with gradients":
        torch.export.save(program, tmp_path / "a.pt2")
        for read in (read_network, open_runtime):
            with pytest.raises(ModelFileError, match=r"node '\w+' \(aten\."):
                read(tmp_path / "a.pt2")


def residual(layer: Layer, x: Tensor) -> Tensor:
    y = functional.relu_(layer.a(x))
    z = layer.a(y)
    z += y
    return functional.relu(z, inplace=True)


def same_tensor(layer: Layer, x: Tensor) -> Tensor:
    y = layer.a(x)
    other = y
    y.add_(0.5).relu_()
    return other + y


READ: dict[str, Forward] = {
    "inplace module": lambda layer, x: nn.ReLU(inplace=True)(layer.a(x)),
    "residual": residual,
    "two names of one tensor": same_tensor,
    "a view that replaces what it views": lambda layer, x: layer.a(x).view(-1, 1, 2).mul_(3.0).flatten(1).relu_(),
    "a part that nobody reads": lambda layer, x: (lambda y: (y.split(1, 1)[0].argmax(1), layer.a(x))[1])(layer.a(x)),
    "a copy": lambda layer, x: x.clone().mul_(2.0) + x,
    "constants": lambda layer, x: layer.a(x) + torch.ones(2).mul_(0.5).add_(1.0),
    "with itself": lambda layer, x: (lambda y: y.add_(y))(layer.a(x)),
}


@pytest.mark.parametrize("name", READ)
def test_a_write_that_nobody_else_sees_is_read_with_its_values(name: str) -> None:
    model = Layer(READ[name]).eval()
    x = torch.tensor([[0.6, 0.5], [0.35, -0.5], [-1.0, 2.0]])
    with torch.no_grad():
        expected = model(x.clone())
    assert torch.allclose(from_module(model, (2,)).evaluate(x), expected, rtol=0, atol=1e-6)
