"""The torch reader against torch itself: modules, exported programs, both dialects."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

from encoders import read_network
from encoders.formats import open_runtime
from encoders.formats.errors import ModelFileError
from encoders.formats.torch_export import from_module, open_module
from encoders.formats.torch_program import convert
from encoders.layers import KWinners, Mwd, MwdConv2d
from tests.networks.op_examples import EXAMPLES

# Agreement of two evaluations of the same formulas by the same library, batched differently.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}

# torch.export 2.13 warns, through the standard library's copyreg, about its own use of pytree.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Residual(nn.Module):
    """A small convolutional network with what published ones contain, in-place operators included."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, (3, 1), padding=(1, 0), groups=2)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4, 5)
        generator = torch.Generator().manual_seed(0)
        self.norm.running_mean.normal_(generator=generator)
        self.norm.running_var.uniform_(0.5, 2.0, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.25
        y = self.relu(self.norm(self.first(x)))
        z = self.second(y)
        z += y
        z = self.pool(self.relu(z))
        z = torch.cat([z, -z], 1)[:, 2:6]
        return self.linear(torch.flatten(self.mean(z), 1))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (3, 8, 8)),
    "mwd": (lambda: nn.Sequential(nn.Flatten(), Mwd(4, 6, "mixed"), Mwd(6, 3, "negated")), (2, 2)),
    "mwd images": (
        lambda: nn.Sequential(
            MwdConv2d(2, 3, (3, 2), (2, 1), (2, 1), "mixed"), nn.Flatten(), Mwd(72, 3, "mixed", link="linear")
        ),
        (2, 6, 5),
    ),
    "k-winners": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), KWinners(0.3), nn.Flatten(), nn.Linear(12, 5), KWinners(0.5), nn.Linear(5, 3)
        ),
        (2, 3, 3),
    ),
    "activations": (
        lambda: nn.Sequential(
            nn.Linear(4, 5),
            nn.Sigmoid(),
            nn.Dropout(),
            nn.Linear(5, 3),
            nn.LeakyReLU(0.2),
            nn.Tanh(),
            nn.Hardtanh(0, float("inf")),
        ).double(),
        (4,),
    ),
    "windows": (
        lambda: nn.Sequential(
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            nn.AvgPool2d(2),
            nn.Conv2d(2, 4, 1, stride=2),
            nn.BatchNorm2d(4, affine=False),
            nn.Dropout2d(),
            nn.MaxPool2d(2, dilation=1),
        ),
        (2, 17, 17),
    ),
    "rows": (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(15, 2, bias=False)), (5, 4)),
    "arithmetic": (lambda: Function(lambda x: (2.0 - (x * 3 + 1).abs() / torch.tensor([3.0, 7.0])) - x), (2,)),
    "constant in front": (lambda: Function(lambda x: torch.tensor([1.0, 2.0]) - 0.1 * x), (2,)),
    "moves": (
        lambda: Function(
            lambda x: x.permute(0, 2, 1).unsqueeze(1).clone().squeeze(1).transpose(1, 2)[:, 1:, ::2].reshape(len(x), -1)
        ),
        (3, 4),
    ),
    "mean": (lambda: Function(lambda x: x.mean((2, 3))), (2, 3, 3)),
    "clamp": (lambda: Function(lambda x: torch.clamp(x, min=0) + functional.relu(-x)), (3,)),
    "to its own type": (lambda: Function(lambda x: x.to(torch.float32).contiguous().detach().relu()), (3,)),
    "matrix": (lambda: Function(lambda x: x @ torch.tensor([1.0, -2.0, 0.5, 4.0, 3.0, 0.1]).view(3, 2)), (3,)),
    "written in place, then read": (lambda: Function(lambda x: (lambda y: y.add_(1.0) + y)(x.relu())), (3,)),
}


def module(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    build, shape = MODULES[name]
    return build(), shape


def rows(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def program(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, dynamic: bool) -> ExportedProgram:
    example = torch.zeros(2 if dynamic else 1, *shape, dtype=dtype)
    dimensions = ({0: torch.export.Dim("batch")},) if dynamic else None
    return torch.export.export(copy.deepcopy(model).eval(), (example,), dynamic_shapes=dimensions, strict=False)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_read_with_its_values(name: str) -> None:
    model, shape = module(name)
    network = from_module(model, shape)
    x = rows(shape, network.dtype)
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(x)
    assert torch.allclose(network.evaluate(x), expected, rtol=0, atol=TOLERANCE[network.dtype])
    assert np.allclose(open_module(model, shape)(x.numpy()), expected, rtol=0, atol=TOLERANCE[network.dtype])


@pytest.mark.parametrize("dynamic", [False, True], ids=["batch 1", "any batch"])
@pytest.mark.parametrize("decomposed", [False, True], ids=["as exported", "decomposed"])
@pytest.mark.parametrize("name", ["residual", "mwd", "mwd images", "k-winners", "windows"])
def test_both_dialects_of_a_file_read_as_the_same_network(
    name: str, decomposed: bool, dynamic: bool, tmp_path: Path
) -> None:
    model, shape = module(name)
    network = from_module(model, shape)
    exported = program(model, shape, network.dtype, dynamic)
    path = tmp_path / "model.pt2"
    torch.export.save(exported.run_decompositions() if decomposed else exported, path)
    read, runtime = read_network(path), open_runtime(path)
    x = rows(shape, network.dtype)
    assert read.digest == network.digest
    assert runtime.batch == ("any" if dynamic else "one")
    assert np.allclose(runtime(x.numpy()), read.evaluate(x), rtol=0, atol=TOLERANCE[network.dtype])


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name not in ("residual", "mwd", "mwd images", "k-winners", "windows")]
)
def test_a_decomposed_program_has_the_values_of_the_module(name: str) -> None:
    model, shape = module(name)
    dtype = from_module(model, shape).dtype
    if name == "rows":
        # Decomposition joins the batch with the rows, which is refused, never misread.
        with pytest.raises(ModelFileError, match="leading axis"):
            convert(program(model, shape, dtype, False).run_decompositions(), name)
        return
    network = convert(program(model, shape, dtype, False).run_decompositions(), name)
    x = rows(shape, dtype)
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(x)
    assert torch.allclose(network.evaluate(x), expected, rtol=0, atol=TOLERANCE[dtype])


def test_reading_leaves_the_module_as_it_is() -> None:
    model, shape = module("residual")
    before = copy.deepcopy(model.state_dict())
    model.train()
    from_module(model, shape)
    open_module(model, shape)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_of_mwd_units_becomes_the_op_with_its_weights() -> None:
    layer = Mwd(4, 3, "mixed", generator=torch.Generator().manual_seed(0))
    op = from_module(layer, (4,)).output.op
    assert op.kind == EXAMPLES["mwd"][1].kind
    assert torch.equal(op.weight, layer.u) and torch.equal(op.attractor, layer.w)
    assert torch.equal(op.negated, layer.negated)
    assert not op.weight.requires_grad


def view_written_in_place(x: Tensor) -> Tensor:
    y = x.relu()
    y.view(-1).add_(1.0)
    return y


def constant_written_in_place(x: Tensor) -> Tensor:
    w = torch.ones(4)
    v = w[:]
    v.mul_(2.0)
    return x + w


REFUSALS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "aten.cumprod": (Function(lambda x: x.cumprod(1)), (4,)),
    "what an argmax returns": (Function(lambda x: x.argmax(1).relu()), (4,)),
    "writes in place to 'input'": (nn.ReLU(inplace=True), (4,)),
    "writes in place to 'view', whose memory is read afterwards as 'relu'": (Function(view_written_in_place), (4,)),
    "writes in place to 'slice_1', whose memory is read afterwards as 'ones'": (
        Function(constant_written_in_place),
        (4,),
    ),
    "ends 2.0 and 1.0": (Function(lambda x: x.clamp(2.0, 1.0)), (4,)),
    "aten._upsample_bilinear2d_aa": (
        Function(lambda x: nn.functional.interpolate(x, size=(5, 5), mode="bilinear", antialias=True)),
        (1, 4, 4),
    ),
    "give the size": (nn.Upsample(scale_factor=2.1), (1, 3, 4)),
    "batch as leading axis": (Function(lambda x: x.squeeze(0)), (4,)),
    "moves the batch": (Function(lambda x: x.permute(1, 0)), (1,)),
    "2 outputs": (Function(lambda x: (x, -x)), (4,)),
    "does not depend": (Function(lambda x: torch.ones(1, 3)), (4,)),
    "input itself": (nn.Identity(), (4,)),
    "matrix product of computed values": (Function(lambda x: x @ x), (1,)),
    "is_causal = True": (
        Function(lambda x: nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)),
        (1, 2, 2),
    ),
    "alpha = 2": (Function(lambda x: torch.add(x, torch.ones(4), alpha=2)), (4,)),
    "dtype": (Function(lambda x: x.to(torch.float64)), (4,)),
    "cannot trace": (Function(lambda x: x if x.sum() > 0 else -x), (4,)),
    "element type torch.float16": (nn.Linear(4, 2).half(), (4,)),
    "aten.topk": (Function(lambda x: x.topk(2)[0]), (4,)),
}


@pytest.mark.parametrize("word", REFUSALS)
def test_a_module_is_refused_by_what_is_wrong_with_it(word: str) -> None:
    model, shape = REFUSALS[word]
    with pytest.raises(ModelFileError) as error:
        from_module(model, shape)
    assert word in str(error.value)
    assert str(error.value).startswith(type(model).__name__)


def test_all_unsupported_calls_are_named_at_once() -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), Function(lambda x: x.cumprod(1)), nn.Hardshrink(), nn.Linear(4, 2), nn.Softshrink()
    )
    with pytest.raises(ModelFileError) as error:
        from_module(model, (3,))
    assert all(
        name in str(error.value) for name in ("aten.cumprod", "aten.hardshrink", "aten.softshrink", "3 problems")
    )


def test_a_program_that_updates_its_statistics_is_refused() -> None:
    exported = torch.export.export(nn.BatchNorm1d(3), (torch.rand(2, 3),), strict=False)
    with pytest.raises(ModelFileError, match="writes in place to 'b_num_batches_tracked'"):
        convert(exported, "test")
    with pytest.raises(ModelFileError, match="writes to"):
        convert(exported.run_decompositions(), "test")


def test_a_dynamic_axis_besides_the_batch_is_refused() -> None:
    exported = torch.export.export(
        nn.ReLU(), (torch.rand(2, 3),), dynamic_shapes=({1: torch.export.Dim("n")},), strict=False
    )
    with pytest.raises(ModelFileError, match="dimension 1"):
        convert(exported, "test")


def test_merging_the_free_batch_into_features_is_refused() -> None:
    exported = torch.export.export(
        Function(lambda x: x.relu().unsqueeze(0)),
        (torch.rand(2, 3),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        strict=False,
    )
    with pytest.raises(ModelFileError, match="batch axis"):
        convert(exported, "test")
