"""Torch modules made at random: the network has the module's values, or the reader refuses it by name."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from encoders import Network, read_network
from encoders.formats import open_runtime
from encoders.formats.errors import ModelFileError
from encoders.formats.torch_constants import FOLDABLE
from encoders.formats.torch_export import from_module
from encoders.formats.torch_operators import FRESH, HANDLERS
from encoders.formats.torch_program import convert
from encoders.layers import KWinners
from tests.networks.torch_sweep import (
    ALIASES,
    BRIDGES,
    CHANNELS,
    ELEMENTWISE,
    FEATURES,
    MAPS,
    MOVES,
    ROWS,
    SIZE,
    WRITES,
    Step,
    Steps,
    random_steps,
    runs_in_torch,
    writing_step,
)
from tests.networks.torch_windows import every_call

# Two evaluations of the same few sums of numbers near 1; a misread call differs by hundredths.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-3}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    # Of even kernels that are padded, of tensors kept during the trace.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def network_or_refusal(model: nn.Module, shape: tuple[int, ...]) -> Network | str:
    try:
        return from_module(model, shape)
    except ModelFileError as error:
        return str(error)


def assert_same_values(network: Network, model: nn.Module, shape: tuple[int, ...], what: object) -> None:
    generator = torch.Generator().manual_seed(7)
    for batch in (1, 3):
        x = torch.randn(batch, *shape, generator=generator, dtype=torch.float64).to(network.dtype)
        with torch.no_grad():
            expected = model(x.clone())
        found = network.evaluate(x)
        assert found.shape == expected.shape, what
        scale = 1 + float(expected.abs().max())
        assert float((found - expected).abs().max()) <= TOLERANCE[network.dtype] * scale, what


def check_sample(seeds: range, least_read: float) -> None:
    """Compare the modules of these seeds; at least this part of them must be read."""
    read = refused = 0
    for seed in seeds:
        shape, names, steps = random_steps(random.Random(seed))
        dtype = torch.float32 if seed % 4 == 0 else torch.float64
        model = Steps(steps, seed).eval().to(dtype)
        if not runs_in_torch(model, shape, dtype):
            continue
        network = network_or_refusal(model, shape)
        if isinstance(network, str):
            refused += 1
            assert "aten." in network or "input itself" in network, (seed, names, network)
        else:
            read += 1
            assert_same_values(network, model, shape, (seed, names))
    assert read >= least_read * (read + refused), (read, refused)


def test_random_modules_are_read_with_their_values_or_refused_by_operator() -> None:
    check_sample(range(16), 0.15)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_thousands_of_random_modules_are_read_with_their_values_or_refused_by_operator(part: int) -> None:
    check_sample(range(1000 + 200 * part, 1200 + 200 * part), 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("alias", ALIASES)
def test_a_write_under_any_name_is_read_with_its_values_or_refused(alias: str) -> None:
    for write in WRITES:
        for after in ("written", "alias", "both"):
            model = Steps([writing_step(alias, write, after)], 0).eval().double()
            if runs_in_torch(model, (FEATURES,), torch.float64):
                network = network_or_refusal(model, (FEATURES,))
                if isinstance(network, Network):
                    assert_same_values(network, model, (FEATURES,), (alias, write, after))


def test_random_modules_are_read_the_same_from_files(tmp_path: Path) -> None:
    count = 0
    for seed in range(100, 112):
        shape, names, steps = random_steps(random.Random(seed))
        model = Steps(steps, seed).eval().double()
        if not runs_in_torch(model, shape, torch.float64) or isinstance(network_or_refusal(model, shape), str):
            continue
        count += 1
        path = tmp_path / f"{seed}.pt2"
        torch.export.save(exported(model, shape, dynamic=seed % 2 == 0), path)
        network, runtime = read_network(path), open_runtime(path)
        assert_same_values(network, model, shape, (seed, names))
        x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert np.allclose(runtime(x.numpy()), network.evaluate(x), rtol=1e-10, atol=1e-10), names
    assert count >= 2


def exported(model: nn.Module, shape: tuple[int, ...], dynamic: bool = False) -> ExportedProgram:
    dimensions = ({0: torch.export.Dim("batch")},) if dynamic else None
    example = torch.zeros(2 if dynamic else 1, *shape, dtype=torch.float64)
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=dimensions, strict=False)


class MemoryCheck(torch.fx.Interpreter):
    """Runs a program and checks that calls with memory of their own have it."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.module())
        self.seen: set[str] = set()

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        result = super().call_function(target, args, kwargs)
        if str(target) in FRESH:
            self.seen.add(str(target))
            assert not given & {tensor.untyped_storage().data_ptr() for tensor in tensors(result)}, target
        return result


def tensors(value: object) -> list[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


# Every step that the reader takes, in a few modules.
CATALOGUE: dict[str, tuple[tuple[int, ...], Sequence[Step]]] = {
    "rows": ((FEATURES,), list(ROWS.values())),
    "elementwise": ((FEATURES,), [ROWS["linear"], ELEMENTWISE["keep"], *ELEMENTWISE.values()]),
    "winners": ((FEATURES,), [ROWS["linear"], lambda m, x: KWinners(0.5)(x)]),
    "places": ((FEATURES,), [ROWS["linear"], lambda m, x: x.argmax(1)]),
    "moves": ((FEATURES,), list(MOVES.values())),
    "maps": ((CHANNELS, SIZE, SIZE), [*MAPS.values(), BRIDGES["adaptive"]]),
    "means": ((CHANNELS, SIZE, SIZE), [MAPS["norm"], BRIDGES["mean"]]),
    "low-level means": ((CHANNELS, SIZE, SIZE), [BRIDGES["low-level adaptive"]]),
    "sizes": ((CHANNELS, SIZE, SIZE), [MAPS["residual"], BRIDGES["view"]]),
}
# Decomposition joins the batch with the rows, pads before the convolution, and makes choices of slopes.
NOT_DECOMPOSED = (
    ROWS["stack of rows"],
    ROWS["attention"],
    MAPS["even same"],
    ROWS["slopes"],
    MAPS["slopes"],
    MOVES["einsum"],
    MOVES["einsum of axes"],
)


def test_every_operator_of_the_tables_is_read_with_its_values_somewhere() -> None:
    """So that no law here holds by refusing everything."""
    read: set[str] = set()
    fresh: set[str] = set()
    for name, (shape, steps) in CATALOGUE.items():
        for decomposed in (False, True) if name in ("rows", "moves", "maps") else (False,):
            kept = [step for step in steps if not (decomposed and step in NOT_DECOMPOSED)]
            model = Steps(kept, 3).eval().double()
            program = exported(model, shape, dynamic=name == "sizes")
            program = program.run_decompositions() if decomposed else program
            assert_same_values(convert(program, name), model, shape, name)
            names = [(node.target, str(node.target)) for node in program.graph.nodes if node.op == "call_function"]
            read |= {target.replace("_.", ".") for _, target in names}
            check = MemoryCheck(program)
            check.run(torch.randn(2 if name == "sizes" else 1, *shape, dtype=torch.float64))
            fresh |= check.seen
    for name, (model, shape) in every_call().items():
        program = exported(model, shape)
        assert_same_values(convert(program, name), model, shape, name)
        read |= {str(node.target) for node in program.graph.nodes}
        check = MemoryCheck(program)
        check.run(torch.randn(1, *shape, dtype=torch.float64))
        fresh |= check.seen
    assert sorted(set(HANDLERS) - read) == []
    assert sorted(set(FRESH) - fresh) == []
    assert sorted(set(FOLDABLE) - read) == []
