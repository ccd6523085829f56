"""Shared pieces: small networks with known answers, and where the optional data lie."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from encoders import Network, Node
from encoders.network import INPUT
from encoders.ops import Affine, Mwd, Op, Relu
from tests.shares import EVERY

# Two threads on small tensors wait for each other, most of all beside another busy process, such as another worker of
# `pytest -n`. So one thread: of torch, of the BLAS that is loaded, and of what tests load or start later.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def chain(shape: tuple[int, ...], *ops: Op, dtype: torch.dtype = torch.float32) -> Network:
    """Return the network that applies the ops in turn."""
    names = [INPUT, *(f"{i}-{op.kind}" for i, op in enumerate(ops))]
    return Network(tuple(Node(names[i + 1], op, (names[i],)) for i, op in enumerate(ops)), shape, dtype)


def random_relu_network(seed: int, sizes: tuple[int, ...] = (2, 6, 5, 3)) -> Network:
    """Return a fully connected ReLU network with normal weights whose classes are balanced on [0, 1]^n."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for inputs, outputs in pairwise(sizes):
        weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        ops += [Affine(weight, 0.3 * torch.randn(outputs, generator=generator)), Relu()]
    last = ops[-2]
    assert isinstance(last, Affine) and last.bias is not None
    outputs = chain((sizes[0],), *ops[:-1]).evaluate(torch.rand(500, sizes[0], generator=generator))
    return chain((sizes[0],), *ops[:-2], Affine(last.weight, last.bias - outputs.mean(dim=0)))


def random_mwd_network(seed: int, sizes: tuple[int, ...] = (2, 6, 5, 3)) -> Network:
    """Return an MWD network with alternating unit types, the last layer mixed."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = layer == len(sizes) - 2
        negated = torch.rand(outputs, generator=generator) < 0.5 if last else torch.full((outputs,), layer % 2 == 0)
        weight = 3 * torch.rand(outputs, inputs, generator=generator)
        ops.append(Mwd(weight, torch.rand(outputs, inputs, generator=generator), negated))
    return chain((sizes[0],), *ops)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but a share of the cases of large matrices slow (`tests/shares.py`)."""
    numbers: dict[str, int] = {}
    for item in items:
        name = getattr(item, "originalname", item.name)
        if name not in EVERY:
            continue
        place = item.nodeid.split("[")[0]
        numbers[place] = numbers.get(place, -1) + 1
        if numbers[place] % EVERY[name]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of optional data sets, or skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the optional data sets are not here")
    return SHARED_DATA
