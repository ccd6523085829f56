"""Networks of one input and one hidden layer of relus, as piecewise linear functions in rational numbers.

The extremes of differences of such functions lie at breakpoints and ends, so that finite lists of points are oracles
of questions about two networks or two inputs.
"""

from fractions import Fraction

import torch

from encoders import Network
from encoders.ops import Affine, Relu
from tests.networks.chains import chain


def bumpy(seed: int, units: int = 6) -> Network:
    """Return y = v . relu(w x + b) + c with bends in [-1, 1], weights few bits long, so that every value is short."""
    generator = torch.Generator().manual_seed(seed)

    def few_bits(*shape: int) -> torch.Tensor:
        return torch.randint(-64, 65, shape, generator=generator).to(torch.float32) / 32.0

    weight = few_bits(units, 1)
    weight = torch.where(weight == 0, torch.ones_like(weight), weight)
    bias = -weight[:, 0] * few_bits(units) / 2.0
    return chain((1,), Affine(weight, bias), Relu(), Affine(few_bits(1, units), few_bits(1)))


def value(network: Network, x: Fraction) -> Fraction:
    """Return the value at a point, from the weights."""
    first, last = network.nodes[0].op, network.nodes[-1].op
    assert isinstance(first, Affine) and first.bias is not None
    assert isinstance(last, Affine) and last.bias is not None
    hidden = [
        max(Fraction(0), Fraction(float(w)) * x + Fraction(float(b)))
        for w, b in zip(first.weight[:, 0], first.bias, strict=True)
    ]
    terms = (Fraction(float(v)) * h for v, h in zip(last.weight[0], hidden, strict=True))
    return sum(terms, Fraction(float(last.bias[0])))


def bends(network: Network, lower: Fraction, upper: Fraction) -> list[Fraction]:
    """Return the ends of an interval and the points between them where the slope may change."""
    first = network.nodes[0].op
    assert isinstance(first, Affine) and first.bias is not None
    places = {-Fraction(float(b)) / Fraction(float(w)) for w, b in zip(first.weight[:, 0], first.bias, strict=True)}
    return sorted({lower, upper, *(place for place in places if lower < place < upper)})


def greatest_change(network: Network, centre: Fraction, lower: Fraction, upper: Fraction) -> Fraction:
    """Return the greatest |f(x) - f(centre)| over an interval."""
    return max(abs(value(network, x) - value(network, centre)) for x in bends(network, lower, upper))


def greatest_fall(network: Network, lower: Fraction, upper: Fraction) -> Fraction:
    """Return the greatest f(x) - f(x') over x <= x' in an interval."""
    values = [value(network, x) for x in bends(network, lower, upper)]
    return max(values[i] - least for i in range(len(values)) for least in values[i:])


def greatest_distance(first: Network, second: Network, lower: Fraction, upper: Fraction) -> Fraction:
    """Return the greatest |f(x) - g(x)| over an interval."""
    places = {*bends(first, lower, upper), *bends(second, lower, upper)}
    return max(abs(value(first, x) - value(second, x)) for x in places)
