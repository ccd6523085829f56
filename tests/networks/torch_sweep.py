"""Torch modules made at random of views, calls in place, shared weights and functional forms."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.layers import Mwd, MwdConv2d

Step = Callable[["Steps", Tensor], Tensor]

CHANNELS, SIZE = 2, 4
FEATURES = 4


class Steps(nn.Module):
    """Runs its steps one after the other; what they share are its weights, and the values kept on the way."""

    def __init__(self, steps: Sequence[Step], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.steps = steps
        self.kept: list[Tensor] = []
        self.linear = nn.Linear(FEATURES, FEATURES)
        self.wide = nn.Linear(CHANNELS * SIZE * SIZE, FEATURES, bias=False)
        self.convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.even = nn.Conv2d(CHANNELS, CHANNELS, 2, padding="same", groups=2)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.plain_norm = nn.BatchNorm1d(FEATURES, affine=False)
        self.rectifier = nn.ReLU(inplace=True)
        self.one_slope = nn.Parameter(torch.zeros(1))
        self.slopes = nn.PReLU(FEATURES)
        self.map_slopes = nn.PReLU(CHANNELS)
        self.register_buffer("shift", torch.randn(FEATURES, generator=generator))
        self.register_buffer("transposed", torch.randn(FEATURES, FEATURES, generator=generator).t())
        for value in (*self.parameters(), self.norm.running_mean, self.plain_norm.running_mean):
            value.data.copy_(torch.randn(value.shape, generator=generator) / 2)
        self.norm.running_var.uniform_(0.5, 2.0, generator=generator)
        self.plain_norm.running_var.uniform_(0.5, 2.0, generator=generator)
        self.units = Mwd(FEATURES, FEATURES, "mixed", generator=generator)
        self.map_units = MwdConv2d(CHANNELS, CHANNELS, 3, padding=1, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = []
        for step in self.steps:
            x = step(self, x)
        self.kept = []
        return x


# Under how many names one piece of memory can be known.
ALIASES: dict[str, Callable[[Tensor], Tensor]] = {
    "same": lambda x: x,
    "view": lambda x: x.view(-1),
    "view kept": lambda x: x.view(x.shape),
    "select": lambda x: x[:, 0],
    "select batch": lambda x: x[0],
    "narrow": lambda x: x.narrow(1, 0, 1),
    "slice": lambda x: x[:, ::2],
    "whole slice": lambda x: x[:],
    "transpose": lambda x: x.transpose(0, 1),
    "T": lambda x: x.T,
    "permute": lambda x: x.permute(1, 0),
    "movedim": lambda x: x.movedim(0, 1),
    "diagonal": lambda x: x.diagonal(),
    "split": lambda x: x.split(2, 1)[0],
    "chunk": lambda x: x.chunk(2, 1)[1],
    "unbind": lambda x: x.unbind(1)[0],
    "tensor_split": lambda x: x.tensor_split(2, 1)[0],
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 1, -1),
    "expand_as": lambda x: x.expand_as(x),
    "as_strided": lambda x: x.as_strided((1,), (1,)),
    "unfold": lambda x: x.unfold(1, 1, 1),
    "detach": lambda x: x.detach(),
    "reshape": lambda x: x.reshape(-1),
    "contiguous": lambda x: x.contiguous(),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "dropout": lambda x: functional.dropout(x, 0.5, False),
    "dropout2d": lambda x: functional.dropout1d(x.unsqueeze(1), 0.5, False).squeeze(1),
    "to": lambda x: x.to(x.dtype),
    "type_as": lambda x: x.type_as(x),
    "identity": nn.Identity(),
    "clone": lambda x: x.clone(),
    "relu": lambda x: x.relu(),
    "cat": lambda x: torch.cat([x]),
}

WRITES: dict[str, Callable[[Tensor], object]] = {
    "relu": lambda v: v.relu_(),
    "functional relu": lambda v: functional.relu_(v),
    "relu inplace": lambda v: functional.relu(v, inplace=True),
    "leaky": lambda v: functional.leaky_relu_(v, 0.2),
    "hardtanh": lambda v: functional.hardtanh_(v, 0.0, float("inf")),
    "clamp": lambda v: v.clamp_(min=0),
    "tanh": lambda v: v.tanh_(),
    "sigmoid": lambda v: torch.sigmoid_(v),
    "abs": lambda v: v.abs_(),
    "neg": lambda v: v.neg_(),
    "mul": lambda v: v.mul_(1.5),
    "div": lambda v: v.div_(3),
    "add": lambda v: v.add_(0.1),
    "sub": lambda v: v.sub_(torch.tensor(0.3)),
    "add alpha": lambda v: v.add_(torch.tensor(1.0), alpha=2),
    "add itself": lambda v: v.add_(v),
    "augmented": lambda v: v.__iadd__(0.25),
    "fill": lambda v: v.fill_(0.5),
    "zero": lambda v: v.zero_(),
    "copy": lambda v: v.copy_(torch.tensor(0.25)),
    "assign": lambda v: v.__setitem__(..., 0.5),
    "masked fill": lambda v: v.masked_fill_(v > 0, 0.5),
    "index put": lambda v: v.index_put_((torch.tensor([0]),), torch.tensor(0.5, dtype=v.dtype)),
    "out": lambda v: torch.add(v, 1.0, out=v),
    "out relu": lambda v: torch.mul(v, 2.0, out=v),
    "threshold": lambda v: functional.threshold_(v, 0.1, 0.0),
}

# Functions of one number, defined everywhere and slowly growing.
CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "arctangent": torch.atan,
    "celu": lambda x: functional.celu(x, 0.5),
    "clamp both": lambda x: x.clamp(-1, 1.5),
    "clamp by tensors": lambda x: torch.clamp(x, torch.tensor(-0.5, dtype=x.dtype), torch.tensor(0.7, dtype=x.dtype)),
    "clamp above a tensor": lambda x: torch.clamp(x, min=torch.tensor(-0.9, dtype=x.dtype)),
    "clamp max by a tensor": lambda x: torch.clamp_max(x, torch.tensor(2.0, dtype=x.dtype)),
    "clamp min by a tensor": lambda x: torch.clamp_min(x, torch.tensor(-1.9, dtype=x.dtype)),
    "clamp max": lambda x: torch.clamp_max(x, 0.25),
    "cos": torch.cos,
    "elu": lambda x: functional.elu(x, 0.7),
    "erf": torch.erf,
    "exp": lambda x: torch.exp(-x.abs()),
    "gelu": functional.gelu,
    "gelu tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "hardtanh both": lambda x: functional.hardtanh(x, -0.5, 2.0),
    "leaky relu reversed": lambda x: functional.leaky_relu(x, -0.25),
    "log": lambda x: torch.log(x.abs() + 0.5),
    "log sigmoid": functional.logsigmoid,
    "maximum": lambda x: torch.maximum(x, -x * 0.5),
    "minimum": lambda x: torch.minimum(torch.tensor(0.3, dtype=x.dtype), x),
    "mish": functional.mish,
    "power": lambda x: (x.abs() + 0.1) ** 1.5,
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 0.5),
    "relu6": functional.relu6,
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.5),
    "selu": functional.selu,
    "silu": functional.silu,
    "sin": torch.sin,
    "softplus": lambda x: functional.softplus(x, 2.0, 4.0),
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "sgn": lambda x: x + torch.sgn(x),
    "sign": lambda x: x - torch.sign(x),
    "square": torch.square,
}

# Elementwise forms, in place and functional, for values of any shape.
ELEMENTWISE: dict[str, Step] = {
    "relu": lambda m, x: functional.relu(x),
    "relu module": lambda m, x: m.rectifier(x),
    "torch relu": lambda m, x: torch.relu(x),
    "clamp": lambda m, x: x.clamp(min=0),
    "clamp_min": lambda m, x: torch.clamp_min(x, 0.0),
    "hardtanh": lambda m, x: functional.hardtanh(x, 0.0, float("inf")),
    "leaky relu": lambda m, x: functional.leaky_relu(x, 0.1),
    **{name: lambda m, x, f=f: f(x) for name, f in CURVES.items()},
    "prelu": lambda m, x: functional.prelu(x, m.one_slope),
    "tanh": lambda m, x: x.tanh(),
    "sigmoid": lambda m, x: x.sigmoid(),
    "abs": lambda m, x: abs(x),
    "neg": lambda m, x: -x,
    "times a number": lambda m, x: 0.7 * x,
    "over a number": lambda m, x: x / 3,
    "plus a number": lambda m, x: x + 0.1,
    "minus a number": lambda m, x: x - 2,
    "a number minus": lambda m, x: 1.3 - x,
    "a constant minus": lambda m, x: torch.tensor(0.4, dtype=torch.float64) - x,
    "rsub": lambda m, x: torch.rsub(x, 0.6),
    "rsub of a tensor": lambda m, x: torch.ops.aten.rsub.Tensor(x, torch.tensor(0.6, dtype=x.dtype)),
    "scalar overloads": lambda m, x: torch.ops.aten.rsub.Scalar(
        torch.ops.aten.sub.Scalar(torch.ops.aten.add.Scalar(x, 0.5), 0.25), 1.0
    ),
    "gate": lambda m, x: x * x.sigmoid(),
    "product of two": lambda m, x: x * (x + 1.0).tanh(),
    "quotient of two": lambda m, x: x / (x.abs() + 0.5),
    "scalar products": lambda m, x: torch.ops.aten.div.Scalar(torch.ops.aten.mul.Scalar(x, 3.0), 7.0),
    "zero axes": lambda m, x: x * torch.tensor(1.1, dtype=torch.float64) + torch.tensor(2),
    "dropout": lambda m, x: functional.dropout(x, 0.5, m.training),
    "feature dropout": lambda m, x: functional.dropout1d(x.unsqueeze(1), 0.5, m.training).squeeze(1),
    "copies": lambda m, x: torch.ops.aten.alias(x.clone().contiguous().detach().to(x.dtype)),
    "to copy": lambda m, x: torch.ops.aten._to_copy(x, dtype=x.dtype),
    "keep": lambda m, x: (m.kept.append(x), x)[1],
    "add kept": lambda m, x: x + next(k for k in reversed(m.kept) if k.shape == x.shape),
    "add kept in place": lambda m, x: x.add_(next(k for k in reversed(m.kept) if k.shape == x.shape)),
    "subtract kept": lambda m, x: next(k for k in m.kept if k.shape == x.shape) - x,
}

ROWS: dict[str, Step] = {
    "linear": lambda m, x: m.linear(x),
    "softmax": lambda m, x: x.softmax(1),
    "layer norm": lambda m, x: functional.layer_norm(x, (FEATURES,), m.linear.weight[0], m.shift, 1e-3),
    "plain layer norm": lambda m, x: functional.layer_norm(x.view(-1, 2, 2), (2, 2)).flatten(1),
    "matrix product": lambda m, x: (x.view(-1, 2, 2) @ x.view(-1, 2, 2).tanh()).flatten(1),
    "bmm": lambda m, x: torch.bmm(x.view(-1, 2, 2), m.linear(x).view(-1, 2, 2).transpose(1, 2)).flatten(1),
    "attention": lambda m, x: functional.scaled_dot_product_attention(
        x.view(-1, 1, 2, 2), m.linear(x).view(-1, 1, 2, 2), x.view(-1, 1, 2, 2)
    ).flatten(1),
    "log softmax": lambda m, x: functional.log_softmax(x.view(-1, 2, 2), dim=-2).flatten(1),
    "functional linear": lambda m, x: functional.linear(x, m.linear.weight),
    "transposed weight": lambda m, x: functional.linear(x, m.transposed, m.shift),
    "matmul": lambda m, x: x @ m.linear.weight.t(),
    "mm": lambda m, x: torch.mm(x, m.transposed),
    "addmm": lambda m, x: torch.addmm(m.shift, x, m.transposed),
    "batch norm": lambda m, x: m.plain_norm(x),
    "slopes": lambda m, x: m.slopes(x),
    "units": lambda m, x: m.units(x),
    "shift": lambda m, x: x + m.shift,
    "scaled shift": lambda m, x: x - (m.shift * 2 + 1).view(1, -1),
    "constant row": lambda m, x: torch.ones(FEATURES, dtype=x.dtype) / 4 - x,
    "expanded constant": lambda m, x: x + torch.ones(1, dtype=x.dtype).expand(FEATURES),
    "over constants": lambda m, x: x / (m.shift * 0.01 + 3),
    "cat": lambda m, x: torch.cat([x, -x], 1)[:, 2:6],
    "fold in place": lambda m, x: x + torch.zeros(FEATURES, dtype=x.dtype).add_(m.shift),
    "axes": lambda m, x: x.unsqueeze(1).unflatten(2, (2, 2)).transpose(2, 3).permute(0, 1, 3, 2).flatten(1),
    "view and back": lambda m, x: x.view(-1, 2, 2).transpose(1, 2).reshape(-1, FEATURES),
    "squeeze": lambda m, x: x.unsqueeze(-1).squeeze(-1),
    "squeeze axes": lambda m, x: x.unsqueeze(1).unsqueeze(1).squeeze((1, 2)),
    "unsafe view": lambda m, x: torch.ops.aten._unsafe_view(m.linear(x), [len(x), FEATURES, 1]).flatten(1),
    "stack of rows": lambda m, x: m.linear(x.view(-1, 1, FEATURES)).view(-1, FEATURES),
}

# What only moves or sums: from rows to rows of as many values.
MOVES: dict[str, Step] = {
    "split": lambda m, x: torch.cat(x.split(2, 1)[::-1], 1),
    "split sizes": lambda m, x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "chunk": lambda m, x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0]], -1),
    "tensor split": lambda m, x: torch.hstack(x.tensor_split(2, 1)[::-1]),
    "unbind": lambda m, x: torch.stack(x.unbind(1)[::-1], 1),
    "select": lambda m, x: x + x[:, 2].unsqueeze(1),
    "flip": lambda m, x: x.flip(1),
    "roll": lambda m, x: x.roll(3, 1),
    "fancy index": lambda m, x: x[:, [3, 0, 0, 2]],
    "arange index": lambda m, x: x[:, torch.arange(3, -1, -1)],
    "index select": lambda m, x: x.index_select(1, torch.tensor([3, 1, 0, 0])),
    "gather": lambda m, x: x.gather(1, torch.tensor([[3, 0, 0, 1]]).expand(len(x), -1)),
    "pad": lambda m, x: functional.pad(x, (2, -2), value=0.5),
    "plain pad": lambda m, x: torch.ops.aten.constant_pad_nd(x, [1, -1]),
    "mirrored": lambda m, x: functional.pad(x.unsqueeze(1), (2, 1), "reflect")[:, 0, 1:5],
    "mirror op": lambda m, x: torch.ops.aten.reflection_pad1d(x.unsqueeze(1), [1, 1])[:, 0, 1:5],
    "repeated ends": lambda m, x: torch.ops.aten.replication_pad1d(x.unsqueeze(1), [2, 0])[:, 0, 1:5],
    "expand": lambda m, x: x.unsqueeze(1).expand(-1, 2, FEATURES).flatten(1)[:, 2:6],
    "expand the batch": lambda m, x: x.unsqueeze(1).expand(len(x), 2, FEATURES).flatten(1)[:, 1:5],
    "broadcast": lambda m, x: torch.broadcast_to(x.unsqueeze(2), (-1, FEATURES, 2)).flatten(1)[:, ::2],
    "repeat": lambda m, x: x.repeat(1, 2)[:, 1:5],
    "tile": lambda m, x: x.tile(2)[:, 3:7],
    "repeat each": lambda m, x: x.repeat_interleave(2, 1)[:, 1:5],
    "where": lambda m, x: torch.where(torch.tensor([True, False, True, False]), x, m.shift),
    "where a number": lambda m, x: torch.where(torch.arange(FEATURES) > 1, x, 0.25),
    "where not": lambda m, x: torch.ops.aten.where.ScalarSelf(torch.arange(FEATURES) < 1, 0.25, -x),
    "mask": lambda m, x: x.masked_fill(torch.arange(FEATURES) == 1, -3.0),
    "scatter": lambda m, x: x.scatter(1, torch.tensor([[1, 2]]).expand(len(x), -1), -x[:, :2]),
    "scatter a number": lambda m, x: x.scatter(1, torch.tensor([[1, 2]]).expand(len(x), -1), 0.5),
    "slice scatter": lambda m, x: torch.slice_scatter(x, -x[:, :2], 1, 2, 4),
    "select scatter": lambda m, x: torch.select_scatter(x, -x[:, 0], 1, 2),
    "cat constants": lambda m, x: torch.cat([m.shift[:1].expand(len(x), 1), x, m.shift[:1].expand(len(x), 1)], 1)[
        :, 1:5
    ],
    "cat zeros": lambda m, x: torch.cat([torch.zeros_like(x[:, :1]), x, torch.ones_like(x[:, :1])], 1)[:, 2:],
    "cat numbers": lambda m, x: (
        torch.cat([x.new_zeros(len(x), 1), torch.full_like(x, 2), x.new_ones(len(x), 1)], 1)[:, :4] + x
    ),
    "shuffle": lambda m, x: functional.pixel_shuffle(x.view(-1, 4, 1, 1), 2).flatten(1),
    "unshuffle": lambda m, x: functional.pixel_unshuffle(x.view(-1, 1, 2, 2).mT, 2).flatten(1),
    "channel shuffle": lambda m, x: torch.channel_shuffle(x.view(-1, 4, 1, 1), 2).flatten(1),
    "lower triangle": lambda m, x: x.view(-1, 2, 2).tril().flatten(1),
    "upper triangle": lambda m, x: x.view(-1, 2, 2).triu(1).flatten(1) + x,
    "diagonal": lambda m, x: x.view(-1, 2, 2).diagonal(0, 1, 2).repeat(1, 2),
    "narrow": lambda m, x: torch.cat([x.narrow(1, 1, 2)] * 2, 1),
    "movedim": lambda m, x: x.view(-1, 2, 2).movedim(1, 2).flatten(1),
    "swapaxes": lambda m, x: x.view(-1, 2, 2).swapaxes(1, 2).flatten(1),
    "unfold": lambda m, x: x.unfold(1, 2, 1).flatten(1)[:, 1:5],
    "sum": lambda m, x: x + x.sum(1, keepdim=True),
    "mean of an axis": lambda m, x: x - x.view(-1, 2, 2).mean(2).repeat(1, 2),
    "greatest": lambda m, x: x - x.view(-1, 2, 2).amax((1, 2), keepdim=True).squeeze(2),
    "least": lambda m, x: x + x.view(-1, 2, 2).amin(2).tile(2),
    "max": lambda m, x: x - x.max(1, keepdim=True).values,
    "min": lambda m, x: x + x.min(1, keepdim=True)[0],
    "running sum": lambda m, x: x.view(-1, 2, 2).cumsum(1).flatten(1),
    "einsum": lambda m, x: torch.einsum("bi,ji->bj", x, m.transposed),
    "einsum of axes": lambda m, x: torch.einsum("ij,bkj->bki", m.transposed[:2, :2], x.view(-1, 2, 2)).flatten(1),
    "broadcast sum": lambda m, x: (x.view(-1, 2, 2) - x.view(-1, 1, 2, 2).mean(3)[:, 0].unsqueeze(2)).flatten(1),
}

MAPS: dict[str, Step] = {
    "convolution": lambda m, x: m.convolution(x),
    "shared convolution": lambda m, x: m.convolution(m.convolution(x).relu_()),
    "even same": lambda m, x: m.even(x),
    "low-level convolution": lambda m, x: torch.ops.aten.convolution(
        x, m.convolution.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1
    ),
    "norm": lambda m, x: m.norm(x),
    "norm, relu in place": lambda m, x: functional.relu_(m.norm(x)),
    "max pool": lambda m, x: functional.max_pool2d(x, 3, 1, 1),
    "max pool with places": lambda m, x: functional.max_pool2d(x, 3, 1, 1, return_indices=True)[0],
    "average pool": lambda m, x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "residual": lambda m, x: functional.relu_(m.convolution(x).add_(x)),
    "channels last": lambda m, x: x.contiguous(memory_format=torch.channels_last),
    "slopes": lambda m, x: m.map_slopes(x),
    "units": lambda m, x: m.map_units(x),
    "edges": lambda m, x: torch.ops.aten.replication_pad2d(x, [1, 0, 2, 1])[:, :, 1:5, 1:5],
    "mirror": lambda m, x: functional.pad(x, (1, 1, 1, 1), "reflect")[:, :, 1:-1, :-2],
    "mirror op": lambda m, x: torch.ops.aten.reflection_pad2d(x, [1, 1, 1, 1])[:, :, 1:-1, :-2],
    "add pooled": lambda m, x: x + functional.adaptive_avg_pool2d(x, 1),
    "channel shift": lambda m, x: x - torch.tensor([0.1, 0.2], dtype=x.dtype).view(1, CHANNELS, 1, 1),
}

# From maps to rows.
BRIDGES: dict[str, Step] = {
    "flatten": lambda m, x: m.wide(x.flatten(1)),
    "view": lambda m, x: m.wide(x.view(x.shape[0], -1)),
    "adaptive": lambda m, x: torch.cat([functional.adaptive_avg_pool2d(x, 1).flatten(1)] * 2, 1),
    "low-level adaptive": lambda m, x: torch.cat([torch.ops.aten._adaptive_avg_pool2d(x, [1, 1]).flatten(1)] * 2, 1),
    "mean of axes": lambda m, x: torch.cat([x.mean(3).mean(2)] * 2, 1),
    "mean": lambda m, x: torch.cat([x.mean((2, 3)), -x.mean((-1, -2), keepdim=True).flatten(1)], 1),
}

# What the reader does not take: of any shape, rows, maps, and from maps to rows.
REFUSED_ELEMENTWISE: dict[str, Step] = {
    "where": lambda m, x: torch.where(x > 0, x, 0.1 * x),
    "double": lambda m, x: x.to(torch.float64) * 1.1,
    "rounding mode": lambda m, x: torch.div(x, 0.7, rounding_mode="floor"),
    "power of a power": lambda m, x: x ** x.detach().abs(),
    "clamp crossed": lambda m, x: x.clamp(1, -1),
    "add alpha": lambda m, x: torch.add(x, 1.0, alpha=2),
}
REFUSED_ROWS: dict[str, Step] = {
    "addmm scaled": lambda m, x: torch.addmm(m.shift, x, m.transposed, beta=0.5),
    "weight in place": lambda m, x: x + m.shift.view(-1).mul_(1.0),
    "batch mean": lambda m, x: x - x.mean(0),
    "flip the batch": lambda m, x: x.flip(0),
    "roll the batch": lambda m, x: x.roll(6, 0),
    "roll all": lambda m, x: x.roll(1),
    "take and repeat a row": lambda m, x: x[0].repeat(len(x), 1),
    "places of the greatest": lambda m, x: x + x.max(1, keepdim=True)[1],
    "sum of all": lambda m, x: x + x.sum(),
    "a row replaced": lambda m, x: torch.select_scatter(x, m.shift, 0, 0),
    "scattered twice": lambda m, x: x.scatter(1, torch.tensor([[1, 1]]).expand(len(x), -1), -x[:, :2]),
}
REFUSED_MAPS: dict[str, Step] = {
    "ceil": lambda m, x: functional.max_pool2d(x, 2, 1, ceil_mode=True, padding=1)[:, :, :SIZE, :SIZE],
}
REFUSED_BRIDGES: dict[str, Step] = {
    "flatten from the start": lambda m, x: m.wide(x.flatten(0).view(-1, CHANNELS * SIZE * SIZE)),
}

AFTER = ("written", "alias", "alias", "both", "neither")


def writing_step(alias: str, write: str, after: str) -> Step:
    """Return a step that writes to new memory under another name, and goes on with one of the names."""

    def step(m: Steps, x: Tensor) -> Tensor:
        y = m.linear(x)
        v = ALIASES[alias](y)
        WRITES[write](v)
        if after == "written":
            return y
        if after == "alias" and v.shape == y.shape:
            return v
        if after == "both" and v.shape == y.shape:
            return y + v
        # The memory written to is dead where the step goes on from what it was given.
        return x + 1.0 if after == "neither" else y + 1.0

    return step


def random_steps(source: random.Random) -> tuple[tuple[int, ...], list[str], list[Step]]:
    """Return an input shape, names of steps and the steps."""
    names: list[str] = []
    steps: list[Step] = []

    def add(*tables: dict[str, Step], refused: dict[str, Step]) -> None:
        table = refused if source.random() < 0.06 else source.choice(tables)
        names.append(source.choice(sorted(table)))
        steps.append(table[names[-1]])

    maps = source.random() < 0.4
    if maps:
        for _ in range(source.randint(1, 4)):
            add(MAPS, MAPS, ELEMENTWISE, refused=REFUSED_MAPS)
        add(BRIDGES, refused=REFUSED_BRIDGES)
    for _ in range(source.randint(1, 4)):
        if source.random() < 0.4:
            alias, write, after = (source.choice(sorted(table)) for table in (ALIASES, WRITES, AFTER))
            names.append(f"{alias} / {write} / {after}")
            steps.append(writing_step(alias, write, after))
        else:
            add(ROWS, MOVES, ELEMENTWISE, refused=REFUSED_ROWS | REFUSED_ELEMENTWISE)
    return (CHANNELS, SIZE, SIZE) if maps else (FEATURES,), names, steps


def runs_in_torch(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Return whether the module takes one input and several, and gives a row for each."""
    try:
        with torch.no_grad():
            results = [model(torch.zeros(batch, *shape, dtype=dtype)) for batch in (1, 3)]
    except (RuntimeError, StopIteration, IndexError):
        # Steps that do not fit each other.
        return False
    return [len(result) for result in results] == [1, 3]
