"""How inputs of one shape become inputs of the shape that a model takes: as they are, permuted, reshaped or refused.

Equal numbers of elements say nothing about their order: (4, 4, 3) reshaped to (3, 4, 4) is another image. So axes are
permuted only if the user names the layout of the data, and refused if they fit only after a permutation. A layout
(`nchw`: channels first, `nhwc`: channels last) is about inputs with three axes. Of the model it is known only what its
shape says: where both orders have its shape (three equal axes), the model counts as channels first, with a warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, permutations

from verifier.data.error import DataError

LAYOUTS = ("nchw", "nhwc")
# What turns an image in each layout into the other one.
_TURN = {"nchw": (1, 2, 0), "nhwc": (2, 0, 1)}
_NAMES = {"nchw": "channels first", "nhwc": "channels last"}
# All orders of seven axes; a longer search would only make the words of a refusal better.
_ORDERS_TRIED = 5040

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Arrangement:
    """The order in which the axes of an input are taken before it is reshaped in C order, with words for the note.

    warning: what a user has to know, None where the order of the elements is in no doubt.
    """

    order: tuple[int, ...]
    words: str
    warning: str | None = None


def arrange(data: Shape, model: Shape, layout: str | None) -> Arrangement:
    """Return how inputs of the shape `data`, in this layout if one is given, become inputs of the shape `model`.

    Raises DataError, without the name of the data, if they do not or only after a permutation that nobody named.
    """
    check_layout(layout)
    if min(model, default=1) < 1 or math.prod(model) != math.prod(data):
        raise DataError(
            f"inputs of shape {data} ({math.prod(data)} elements) do not fit the model's input shape {model}"
        )
    if layout is None or not _says_something(data, model, layout):
        return _keep_order(data, model)
    return _follow(data, model, layout)


def check_layout(layout: str | None) -> None:
    """Return nothing; raise DataError unless the layout is None or one of LAYOUTS."""
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)} (the axes of the data)")


def channels_first(data: Shape, layout: str | None) -> Shape:
    """Return the shape of an input with its channels first, where it has three axes and the layout says otherwise."""
    check_layout(layout)
    return _turned(data, layout) if layout == "nhwc" and len(data) == 3 else data


def _says_something(data: Shape, model: Shape, layout: str) -> bool:
    """Return whether the layout can change the order of elements; raise DataError if it names axes that are not there.

    Grey images have one order only, with an axis for the channel, without it, or flattened.
    """
    if len(data) == 3:
        channels, *rest = data if layout == "nchw" else (data[2], *data[:2])
        return channels != 1 and math.prod(rest) != 1
    if len(data) == 2 or _is_grey(data, model):
        return False
    raise DataError(
        f"layout {layout} names the order of three axes, and the inputs have shape {data}; leave it away, or save x "
        f"with its axes (n, height, width, channels) or (n, channels, height, width)"
    )


def _follow(data: Shape, model: Shape, layout: str) -> Arrangement:
    """Return the arrangement of inputs with three axes whose layout was given."""
    turned, turn = _turned(data, layout), _TURN[layout]
    other = LAYOUTS[1 - LAYOUTS.index(layout)]
    stays, turns = data == model, turned == model
    if not (stays or turns):
        stays, turns = _without_ones(data) == _without_ones(model), _without_ones(turned) == _without_ones(model)
    if stays and turns:
        # Three equal axes. What reads models (torch, ONNX) has channels first.
        stays = layout == "nchw"
        warning = f"the model's input shape {model} fits both layouts and is taken as channels first"
        if stays:
            return Arrangement((0, 1, 2), f"{layout} by the given layout, not permuted", warning)
        return Arrangement(turn, f"permuted from {layout} to {other}", f"{warning}: the data were permuted to it")
    if turns:
        return Arrangement(turn, f"permuted from {layout} to {other}, {data} to {model}")
    if stays:
        return Arrangement((0, 1, 2), f"{layout} by the given layout, as the model's {model}")
    message = (
        f"inputs of shape {data} are {turned if layout == 'nhwc' else data} with channels first and "
        f"{data if layout == 'nhwc' else turned} with channels last if they are {layout}; the model takes {model}"
    )
    if _turned(data, other) == model:
        raise DataError(f"{message}, which fits --layout {other} (layout={other!r} in Python)")
    if len(_without_ones(model)) == 1:
        turned_order = _numbers(axis + 1 for axis in turn)
        raise DataError(
            f"{message}, and nothing says in which order its elements are: save x flattened in the order that the "
            f"model was trained with, x.reshape(len(x), -1) or x.transpose(0, {turned_order}).reshape(len(x), -1)"
        )
    raise DataError(f"{message}; save x with the axes of the model, for example x.transpose(0, 1, 3, 2)")


def _keep_order(data: Shape, model: Shape) -> Arrangement:
    """Return the arrangement that changes no order; raise DataError where one of the axes would fit."""
    same = tuple(range(len(data)))
    if data == model:
        return Arrangement(same, "")
    axes, wanted = _without_ones(data), _without_ones(model)
    words = f"reshaped in C order from {data} to {model}"
    if axes == wanted:
        return Arrangement(same, words)
    if not _merges(axes, wanted):
        order = next(_fitting_orders(data, wanted), None)
        if order is not None:
            raise DataError(_permutation_words(data, model, order))
    if _is_grey(data, model) or _is_grey(model, data):
        return Arrangement(same, words)
    return Arrangement(same, words, f"inputs of shape {data} are taken as {model} in C order; {_doubt(data, model)}")


def _is_grey(flat: Shape, image: Shape) -> bool:
    """Return whether these are a flattened image and the image, with an axis that can only be its one channel."""
    return (
        len(_without_ones(flat)) == 1
        and len(image) == 3
        and (image[0] == 1 or (image[2] == 1 and image[0] == image[1]))
    )


def _doubt(data: Shape, model: Shape) -> str:
    """Return what a user should check about a reshape, and the remedy."""
    if len(data) == 1 and len(model) == 3:
        last = (*model[1:], model[0])
        return (
            f"if they were flattened in another order, save them with their axes (x.reshape(len(x), "
            f"{_numbers(last)}) for channels last) and say --layout nhwc"
        )
    if len(model) == 1 and len(data) == 3:
        return (
            "if the model was trained with another order of axes, save x flattened in that order "
            "(x.transpose(0, 2, 3, 1).reshape(len(x), -1) turns channels first into channels last)"
        )
    return "if the model orders its elements otherwise, save x in the model's shape and order"


def _permutation_words(data: Shape, model: Shape, order: tuple[int, ...]) -> str:
    """Return the refusal of inputs whose axes fit in this order, with the option or the line that permutes them."""
    save = f"x.transpose(0, {_numbers(axis + 1 for axis in order)})"
    if tuple(data[axis] for axis in order) != model:
        save += f".reshape(len(x), {_numbers(model)})"
    said = [
        layout for layout in LAYOUTS if len(data) == 3 and _without_ones(_turned(data, layout)) == _without_ones(model)
    ]
    option = "".join(
        f"if they have their {_NAMES[layout]}, say --layout {layout} (layout={layout!r} in Python); otherwise "
        for layout in said
    )
    return (
        f"inputs of shape {data} fit the model's input shape {model} only with their axes in another order, "
        f"{order}: {option}save {save} as x"
    )


def _fitting_orders(data: Shape, wanted: Shape) -> Iterator[tuple[int, ...]]:
    """Yield orders of the axes of the data that fit, those of a layout first, then those that move least."""
    long = [axis for axis, size in enumerate(data) if size != 1]
    short = [axis for axis, size in enumerate(data) if size == 1]
    for layout in reversed(LAYOUTS):
        if len(data) == 3 and _merges(_without_ones(_turned(data, layout)), wanted):
            yield _TURN[layout]
    if sorted(data[axis] for axis in long) == sorted(wanted):
        left = list(long)
        taken = [left.pop([data[axis] for axis in left].index(size)) for size in wanted]
        yield (*taken, *short)
    for order in islice(permutations(long), _ORDERS_TRIED):
        if _merges(tuple(data[axis] for axis in order), wanted):
            yield (*order, *short)


def _merges(first: Shape, second: Shape) -> bool:
    """Return whether one shape is the other with neighbouring axes joined; both without axes of one element."""
    few, many = sorted((first, second), key=len)
    sizes = iter(many)
    for size in few:
        joined = 1
        while joined < size:
            joined *= next(sizes, size + 1)
        if joined != size:
            return False
    return next(sizes, None) is None


def _turned(shape: Shape, layout: str) -> Shape:
    """Return the shape of three axes in this layout in the other one."""
    return tuple(shape[axis] for axis in _TURN[layout])


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
