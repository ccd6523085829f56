"""Random properties of small networks: up to three polyhedra of up to three rows, boxes with sides that are points."""

import math

import torch

from encoders.network import Network
from encoders.property import Halfspaces, Property


def random_property(
    network: Network, seed: int, exact: bool = True, within: tuple[float, float] | None = None
) -> Property:
    """Return a property whose rows pass near the network's outputs, so that about half of them hold.

    exact: all numbers are of float32, so that every one of them is an input of the model. within: ends of float32 that
    the box does not leave; None: its lower corner lies in the unit cube.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        values = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return values.to(torch.float32).to(torch.float64) if exact else values

    inputs, (outputs,) = math.prod(network.input_shape), network.output_shape
    lower = uniform(inputs)
    if within is not None:
        lower = (within[0] + (within[1] - within[0]) * lower).to(torch.float32).to(torch.float64)
    upper = torch.maximum(lower, (lower + 0.5 * uniform(inputs)).to(torch.float32).to(torch.float64))
    if within is not None:
        upper = upper.clamp(max=within[1])
    if seed % 3 == 0:
        # A side that is a point; in every ninth case all of them are.
        points = torch.arange(inputs) == seed % inputs if seed % 9 else torch.ones(inputs, dtype=torch.bool)
        upper = torch.where(points, lower, upper)
    drawn = lower + torch.rand(200, inputs, generator=generator, dtype=torch.float64) * (upper - lower)
    seen = network.evaluate(drawn.reshape(200, *network.input_shape))
    unsafe = []
    for _ in range(1 + int(torch.randint(3, (), generator=generator))):
        rows = 1 + int(torch.randint(3, (), generator=generator))
        coefficients = torch.randint(-2, 3, (rows, outputs), generator=generator).to(torch.float64)
        if seed % 2:
            coefficients = coefficients + 0.1 * uniform(rows, outputs)
        # At a quantile of the values seen or beyond them.
        values = seen @ coefficients.T
        least, width = values.amin(dim=0), values.amax(dim=0) - values.amin(dim=0)
        offsets = least + (uniform(rows) * 0.9 - 0.4) * (width + 0.01)
        unsafe.append(Halfspaces(coefficients, offsets))
    return Property(lower, upper, tuple(unsafe), f"random-{seed}")
