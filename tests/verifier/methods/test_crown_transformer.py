"""A small transformer, one block of attention with two heads: read from torch and ONNX, bounded, never contradicted."""

import io
import math
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.box import Box
from encoders.formats.onnx_reader import convert
from encoders.formats.torch_export import from_module
from encoders.formulations.relax import relax
from encoders.network import Network
from encoders.region import BallRegion
from verifier.bounds.interval import compare_classes
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.linear.margins import linear_margins
from verifier.bounds.programs.lp import MarginProgram
from verifier.methods import METHODS

TOKENS, FEATURES, WIDTH, HEADS = 3, 2, 4, 2


class Transformer(nn.Module):
    """Embedding, attention and a GELU layer behind layer norms, each with a residual, and a linear head."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fused = fused
        self.embedding, self.first, self.second = nn.Linear(FEATURES, WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(TOKENS * WIDTH, 3)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        y = self.first(x)
        q, k, v = (self.heads(part(y)) for part in (self.query, self.key, self.value))
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS), dim=-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(-1, TOKENS, WIDTH))
        x = x + self.down(functional.gelu(self.up(self.second(x))))
        return self.head(x.flatten(1))


X = torch.rand(4, TOKENS, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def exported(opset: int, fused: bool = False) -> Network:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Transformer(fused).eval(), (X[:1].float(),), content, opset_version=opset, dynamo=False)
    return convert(onnx.load_from_string(content.getvalue()), "transformer.onnx")


FORMS = {
    "module": lambda: from_module(Transformer().eval(), (TOKENS, FEATURES)),
    "fused attention": lambda: from_module(Transformer(True).eval(), (TOKENS, FEATURES)),
    # Layer norms are written out before opset 17.
    "opset 13": lambda: exported(13),
    "opset 17": lambda: exported(17),
    "opset 17, fused attention": lambda: exported(17, fused=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_transformer_is_read_and_bounded_from_every_form(form: str) -> None:
    network = FORMS[form]()
    with torch.no_grad():
        # Folded constants and scales are those of float32.
        assert torch.allclose(network.evaluate(X), Transformer().double().eval()(X), rtol=0, atol=1e-5)
    classes = network.scores(X).argmax(dim=1)
    region = BallRegion(X, torch.full((len(X),), 1e-4, dtype=torch.float64), None, "inf")
    assert linear_margins(network, region, classes).proved.all()
    taken = {name for name, method in METHODS.items() if method.refusal(network) is None}
    assert {"interval", "crown", "alpha-crown", "lp"} <= taken


@pytest.mark.parametrize("radius", [1e-9, 1e-4, 1e-2, 0.1, 1.0])
def test_bounds_hold_at_points_and_linear_ones_are_no_looser(radius: float) -> None:
    network = FORMS["module"]()
    region = BallRegion(X, torch.full((len(X),), radius, dtype=torch.float64), None, "inf")
    bounds = linear_bounds(network, region)
    rows = torch.cat([torch.eye(3), -torch.eye(3)]).to(torch.float64).expand(len(X), -1, -1)
    least = bounds.minimise(rows).bound
    (box,) = network.interval(region.enclosure())
    linear = Box(least[:, :3], -least[:, 3:])
    assert bool((linear.lower >= box.lower).all()) and bool((linear.upper <= box.upper).all())
    generator = torch.Generator().manual_seed(1)
    for i in range(40):
        share = 2.0 * torch.rand(X.shape, generator=generator, dtype=torch.float64) - 1.0
        values = network.evaluate(X + radius * (share.sign() if i % 2 else share))
        slack = 1e-12 * (1.0 + values.abs())
        assert bool(((values >= linear.lower - slack) & (values <= linear.upper + slack)).all())
    classes = network.scores(X).argmax(dim=1)
    wins = compare_classes(network, region.enclosure(), classes).wins
    assert bool((linear_margins(network, region, classes).proved >= wins.all(dim=1)).all())
    if radius <= 1e-4:
        # First order: intervals widen with the product of all layers, linear bounds with the true slopes.
        width, true = linear.upper - linear.lower, np.abs(radius)
        assert float(width.max()) < 200.0 * true + 1e-10


def test_linear_programs_bound_margins_by_all_rows() -> None:
    network, radius = FORMS["module"](), 0.05
    region = BallRegion(X[:1], torch.full((1,), radius, dtype=torch.float64), None, "inf")
    bounds = linear_bounds(network, region)
    winner = int(network.scores(X[:1]).argmax())
    rows = torch.stack([torch.eye(3)[winner] - torch.eye(3)[k] for k in range(3) if k != winner]).to(torch.float64)
    program = MarginProgram(relax(bounds.network, bounds.boxes))
    proved = torch.tensor([program.minimise(row.numpy(), 60.0).bound for row in rows], dtype=torch.float64)
    share = 2.0 * torch.rand(200, TOKENS, FEATURES, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1
    margins = network.evaluate(X[:1] + radius * torch.cat([share, share.sign()])) @ rows.T
    assert bool((proved <= margins.amin(dim=0) + 1e-12).all())
    assert bool((proved > 0).all())
