"""The rows of one affine node: an equation for each of its values, as a way back through a network takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import scipy

from encoders.box import Box
from encoders.network import Node
from verifier.certificates.dual_bound import U
from verifier.certificates.sub_program import stored
from verifier.certificates.sweep import Equations


def equations(
    node: Node, boxes: Mapping[str, Box], reach: Callable[[str], np.ndarray]
) -> tuple[Equations, list[np.ndarray]]:
    """Return the rows of an affine node, and for each input the entries `(values,)` in its columns.

    reach: of a node, the greatest absolute values in its boxes. AssertionError if there is not one equation for each
    value.
    """
    made = node.op.relax(*(_hull(boxes[name]) for name in node.inputs))
    matrix, widths = scipy.sparse.csr_array(made.matrix), [boxes[name].lower[0].numel() for name in node.inputs]
    count = matrix.shape[1] - sum(widths)
    own = scipy.sparse.csr_array(matrix[:, matrix.shape[1] - count :])
    divisor = -own.diagonal()
    assert matrix.shape[0] == count and own.nnz == np.count_nonzero(divisor) == count
    size = np.abs(divisor) * reach(node.name)
    inputs, counts, start = list[tuple[str, np.ndarray | scipy.sparse.csr_array]](), list[np.ndarray](), 0
    for name, width in zip(node.inputs, widths, strict=True):
        part = scipy.sparse.csr_array(matrix[:, start : start + width])
        start += width
        size = size + abs(part) @ reach(name)
        counts.append(np.bincount(part.indices, minlength=width))
        inputs.append((name, stored(part)))
    # Rounded sums of k terms are at most (1 + 2 k U) below the real ones.
    size *= 1.0 + 2.0 * (matrix.shape[1] + 4) * U
    return Equations(node.name, tuple(inputs), divisor, made.lower, made.upper, size), counts


def _hull(box: Box) -> Box:
    """Return the one box (batch 1) around several."""
    return Box.unchecked(box.lower.amin(dim=0, keepdim=True), box.upper.amax(dim=0, keepdim=True))
