"""ONNX operators that pick and replace entries by constant indices, as functions of arrays (see `onnx_cells`).

Meaning of the operators: the ONNX operator specification, default domain, opsets 8 to 21.
"""

import math
from collections.abc import Sequence

import numpy as np

from encoders.formats.onnx_axes import axis_of
from encoders.formats.onnx_cells import claim, fixed_batch, own_axis
from encoders.formats.onnx_node import OnnxNode
from encoders.formats.runtime import Array


def _indices(node: OnnxNode, index: int, sizes: Array | int) -> Array:
    """Return a constant input of indices below the sizes, negative ones counted from the end."""
    indices = node.array(index)
    if indices.dtype.kind != "i":
        raise ValueError(f"takes indices of whole numbers, got {indices.dtype}")
    if bool((indices < -np.asarray(sizes)).any() or (indices >= sizes).any()):
        raise ValueError(f"an index is outside of the {sizes} entries")
    return np.where(indices < 0, indices + sizes, indices)


def gather(node: OnnxNode, data: Array) -> Array:
    """Return the entries at the indices along an axis."""
    if data.ndim == 0:
        raise ValueError("takes entries of a value without axes")
    axis = own_axis(node, data, node.attributes.get("axis", 0))
    indices = _indices(node, 1, data.shape[axis])
    claim(node, data, (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))
    return np.take(data, indices, axis)


def gather_elements(node: OnnxNode, data: Array) -> Array:
    """Return for each index the entry there along an axis, at the place of the index along the others."""
    fixed_batch(node)
    axis = axis_of(node.attributes.get("axis", 0), data.ndim)
    places = _element_places(node, data, axis)
    claim(node, data, places[axis].shape)
    return data[places]


def _element_places(node: OnnxNode, data: Array, axis: int) -> tuple[Array, ...]:
    """Return where the entries lie that the indices of input 1 along an axis name."""
    indices = _indices(node, 1, data.shape[axis])
    fits = indices.ndim == data.ndim and all(size <= data.shape[i] for i, size in enumerate(indices.shape) if i != axis)
    if not fits:
        raise ValueError(f"indices of shape {indices.shape} do not fit {data.shape}")
    places = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    places[axis] = indices
    return tuple(places)


def gather_nd(node: OnnxNode, data: Array) -> Array:
    """Return the entries or parts that the rows of the indices name."""
    fixed_batch(node)
    batch = node.attributes.get("batch_dims", 0)
    indices = node.array(1)
    if not 0 <= batch < min(indices.ndim, data.ndim) or indices.shape[:batch] != data.shape[:batch]:
        raise ValueError(f"batch_dims = {batch} does not fit {data.shape} with indices {indices.shape}")
    depth = indices.shape[-1]
    if not 1 <= depth <= data.ndim - batch:
        raise ValueError(f"indices of shape {indices.shape} do not fit {data.shape}")
    rows = np.moveaxis(_indices(node, 1, np.array(data.shape[batch : batch + depth])), -1, 0)
    lead = np.ogrid[tuple(slice(n) for n in indices.shape[:batch])] if batch else []
    lead = [place.reshape(*place.shape, *[1] * (rows[0].ndim - batch)) for place in lead]
    claim(node, data, (*rows[0].shape, *data.shape[batch + depth :]))
    result: Array = data[(*lead, *rows)]
    return result


def scatter_elements(node: OnnxNode, data: Array, updates: Array) -> Array:
    """Return the data with entries replaced: at each index along an axis the update there."""
    fixed_batch(node)
    node.expect("reduction", "none")
    axis = axis_of(node.attributes.get("axis", 0), data.ndim)
    places = _element_places(node, data, axis)
    return _replaced(node, data, places, updates, places[axis].shape)


def scatter_nd(node: OnnxNode, data: Array, updates: Array) -> Array:
    """Return the data with the parts replaced that the rows of the indices name."""
    fixed_batch(node)
    node.expect("reduction", "none")
    indices = node.array(1)
    depth = indices.shape[-1] if indices.ndim else 0
    if not 1 <= depth <= data.ndim:
        raise ValueError(f"indices of shape {indices.shape} do not fit {data.shape}")
    rows = np.moveaxis(_indices(node, 1, np.array(data.shape[:depth])), -1, 0)
    return _replaced(node, data, tuple(rows), updates, (*rows[0].shape, *data.shape[depth:]))


def _replaced(node: OnnxNode, data: Array, places: tuple[Array, ...], updates: Array, expected: Sequence[int]) -> Array:
    if updates.shape != tuple(expected):
        raise ValueError(f"updates of shape {updates.shape} do not fit; the indices name {tuple(expected)}")
    claim(node, data, data.shape)
    written = np.zeros(data.shape, bool)
    written[places] = True
    if int(written.sum()) != math.prod(expected):
        raise ValueError("an entry is replaced twice, by which of the two is left open")
    result = data.copy()
    result[places] = updates
    return result
