"""Distances in p-norms: as in float64, sandwiched by the inf-norm; loops and plain torch alike; shares as written."""

import pytest
import torch

from encoders.layers.distance import Distance
from encoders.layers.mwd_kernels import VARIABLE
from encoders.layers.mwd_power import power_distance

# Float32 sums of up to 70 terms, their root taken; powers multiply relative errors by p, up to 1024.
TOLERANCE, OF_SHARES = 1e-5, 1e-2


@pytest.fixture(params=["numba", "reference"])
def kernels(request, monkeypatch):
    monkeypatch.setenv(VARIABLE, request.param)
    return request.param


def operands(batch: int, units: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(units)
    return torch.rand(batch, inputs, generator=generator), torch.randn(units, inputs, generator=generator)


@pytest.mark.parametrize(("batch", "units", "inputs"), [(5, 7, 70), (1, 1, 1), (3, 4, 33)])
@pytest.mark.parametrize("squarings", [3, 10])
def test_values_are_norms_and_shares_are_those_of_the_docstring(kernels, batch, units, inputs, squarings):
    x, w = (value.requires_grad_() for value in operands(batch, units, inputs))
    p = 2**squarings
    z = power_distance(x, w, squarings)
    greatest = torch.cdist(x.detach().double(), w.detach().double(), p=torch.inf)
    terms = (x.detach()[:, None] - w.detach()[None]).double().abs() / greatest[:, :, None]
    expected = greatest * (terms**p).sum(2) ** (1 / p)
    torch.testing.assert_close(z.double(), expected, rtol=TOLERANCE, atol=0)
    assert (z >= greatest * (1 - TOLERANCE)).all()
    assert (z <= inputs ** (1 / p) * greatest * (1 + TOLERANCE)).all()
    feedback = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    z.backward(feedback)
    t = (x.detach()[:, None] - w.detach()[None]).double() / expected[:, :, None]
    shares = t.sign() * t.abs() ** (p + 1) * feedback.double()[:, :, None]
    torch.testing.assert_close(x.grad.double(), shares.sum(1), rtol=OF_SHARES, atol=1e-5)
    torch.testing.assert_close(w.grad.double(), -shares.sum(0), rtol=OF_SHARES, atol=1e-5)


def test_at_the_attractor_and_at_the_greatest_power_nothing_is_infinite(kernels):
    x, w = (value.requires_grad_() for value in operands(4, 3, 40))
    with torch.no_grad():
        w[0] = x[0]
    for squarings in (3, 10):
        z = power_distance(x, w, squarings)
        z.sum().backward()
        assert z.isfinite().all() and x.grad.isfinite().all() and w.grad.isfinite().all()
    assert float(z[0, 0].detach()) < 1e-11


def test_what_is_evaluated_moves_by_no_more_than_its_input_and_stays_as_trained():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(Distance(9, 12, False), Distance(12, 12, False), Distance(12, 3, True))
    layers.train()
    for layer in layers:
        layer.squarings = 3
    x = torch.rand(64, 9)
    for _ in range(100):
        trained = layers(x)
    layers.eval()
    with torch.no_grad():
        for layer in layers:
            layer.squarings = None
        assert not torch.equal(layers(x), trained)  # the p-norm was another function
        layers.train()
        shifted = [layers[0](x), layers[0].eval()(x)]
        # One step of the running mean from where 100 steps of the p-norm left it.
        torch.testing.assert_close(shifted[0] - shifted[0].mean(0), shifted[1] - shifted[1].mean(0))
        layers.eval()
        y = x + 0.1 * (2 * torch.rand(64, 9) - 1)
        moved, by = (layers(y) - layers(x)).abs().amax(1), (y - x).abs().amax(1)
    assert (moved <= by + 1e-5).all()
    assert all(float(layer.u.min()) == float(layer.u.max()) == 1.0 for layer in layers)
