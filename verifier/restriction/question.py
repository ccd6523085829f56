"""The question of the restriction: the nearest point to an input at which a frozen network gives a target class.

    minimise epsilon   subject to   |d_i| <= epsilon,   x + d in the domain,
                                    score_t - score_k >= alpha for every class k != t    (the label rows)
                                    every condition of the frozen network >= 0           (so that it is true)

All rows are affine in the step d (Bastani et al. 2016, section 4, with every hidden variable eliminated): their values
at any d are one forward pass, their coefficients vector-Jacobian products. Bastani et al. leave the domain out; without
it the points are no images. The optimum bounds the radius of the network from above (INNER): it proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from encoders.formulations.restrict import FrozenNetwork
from encoders.linear_model import Direction
from encoders.scaling import unit
from encoders.views.restriction import Selection

# Rows of one vector-Jacobian product: memory is this times the widest layer.
CHUNK = 512


@dataclass(frozen=True, eq=False)
class Question:
    """One input, one frozen network, one target class.

    frozen: at one point, on the CPU or a GPU; centre: x `(1, *input_shape)` float64; target: class t; alpha: by how
    much t must win; lower, upper: of the step d, `(n,)`, from the domain and the largest radius asked about; reach:
    that radius. at_centre: the values of all rows at d = 0; a row is kept where its value is >= 0. Row numbers: first
    the label rows (less alpha) in the order of the other classes, then the conditions. units: of each row, a power of
    two that no value of the node that it reads exceeds at d = 0; input_unit: that of x and the reach. Tolerances are
    shares of these.
    """

    frozen: FrozenNetwork
    centre: Tensor
    target: int
    lower: np.ndarray
    upper: np.ndarray
    reach: float
    alpha: float = 0.0
    direction: Direction = field(default=Direction.INNER, init=False)
    at_centre: np.ndarray = field(init=False)
    units: np.ndarray = field(init=False)
    input_unit: float = field(init=False)
    _x: Tensor = field(init=False, repr=False)
    _values: dict[str, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        x = self.centre.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            values = self.frozen.values(x)
        object.__setattr__(self, "_x", x)
        object.__setattr__(self, "_values", values)
        with torch.no_grad():
            object.__setattr__(self, "at_centre", self._rows_at({k: v.detach() for k, v in values.items()}))
        reach = self.reach if np.isfinite(self.reach) else 0.0
        object.__setattr__(self, "input_unit", unit(float(x.detach().abs().max()) + reach))
        object.__setattr__(self, "units", self._units())

    @property
    def inputs(self) -> int:
        """The number of input values."""
        return self.centre.numel()

    @property
    def label_rows(self) -> int:
        """The number of label rows, which come first."""
        return int(self.frozen.network.output_shape[0]) - 1

    def values(self, step: np.ndarray) -> np.ndarray:
        """Return the values of all rows at a step `(n,)`."""
        d = torch.from_numpy(step).to(self.centre.device).reshape_as(self.centre)
        with torch.no_grad():
            return self._rows_at(self.frozen.values(self.centre + d))

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Return the coefficients `(k, n)` of the chosen rows: row . d + at_centre[row] is their value at d."""
        values, network = self._values, self.frozen.network
        result = np.empty((len(numbers), self.inputs))
        start, device = self.label_rows, self.centre.device
        basis = torch.from_numpy(self._label_basis()[numbers[numbers < start]]).to(device)
        self._fill(result, numbers < start, network.output.name, basis)
        for name, conditions in self._conditions():
            count = conditions.plus.shape[1]
            mine = (numbers >= start) & (numbers < start + count)
            (source,) = next(node.inputs for node in network.nodes if node.name == name)
            indices = torch.from_numpy(numbers[mine] - start).to(device)
            self._fill(result, mine, source, conditions.rows(indices, values[source].numel()))
            start += count
        return result

    def _units(self) -> np.ndarray:
        network = self.frozen.network
        inputs = {node.name: node.inputs[0] for node in network.nodes}
        parts = [(network.output.name, self.label_rows)]
        parts += [(inputs[name], conditions.plus.shape[1]) for name, conditions in self._conditions()]
        sizes = [unit(float(self._values[name].detach().abs().max())) for name, _ in parts]
        return np.repeat(sizes, [count for _, count in parts])

    def _fill(self, result: np.ndarray, mask: np.ndarray, name: str, basis: Tensor) -> None:
        """Write the gradients of <basis row, value of the node> into the masked rows of the result."""
        values, x = self._values[name], self._x
        places = np.flatnonzero(mask)
        for first in range(0, len(places), CHUNK):
            part = basis[first : first + CHUNK].reshape(-1, *values.shape)
            if values is x:
                gradient = part
            else:
                (gradient,) = torch.autograd.grad(values, x, part, is_grads_batched=True, retain_graph=True)
            result[places[first : first + CHUNK]] = gradient.flatten(1).cpu().numpy()

    def _conditions(self) -> list[tuple[str, Selection]]:
        return [(n, r.conditions) for n, r in self.frozen.restrictions.items() if r.conditions is not None]

    def _label_basis(self) -> np.ndarray:
        identity = np.eye(self.label_rows + 1)
        return np.delete(identity[self.target] - identity, self.target, axis=0)

    def _rows_at(self, values: dict[str, Tensor]) -> np.ndarray:
        outputs = values[self.frozen.network.output.name].flatten().cpu().numpy()
        labels = np.delete(outputs[self.target] - outputs, self.target) - self.alpha
        parts = [part.flatten().cpu().numpy() for part in self.frozen.conditions(values).values()]
        return np.concatenate([labels, *parts])
