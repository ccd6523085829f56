"""A maximum over windows as rows with binaries (Tjeng, Xiao, Tedrake 2019; Anderson et al. 2020).

On a box, a cell whose upper end is not above the greatest lower end of its window never has to win: the cell of that
lower end is at least as large everywhere. Of the others, with ends l_i and u_i, one binary each says who wins:

    y >= x_i,   y <= x_i + (max_{j != i} u_j - l_i) (1 - b_i),   sum b_i = 1,
    y <= sum_i (x_i - l_i (1 - b_i)),   y <= sum_i u_i b_i.

The last two follow for whole b and cut off fractional ones. A window with one such cell is an equation.
"""

from __future__ import annotations

import numpy as np

from encoders.views.relaxation import Relaxation, Rows, assembled, sum_up


def exact_window(lower: np.ndarray, upper: np.ndarray, cells: np.ndarray) -> Relaxation:
    """Return rows whose solutions with whole binaries are exactly the maxima over windows, on one box.

    lower, upper: ends of the flattened input `(inputs,)`; cells: places `(windows, cells)`, -1 for padding. Constants
    are rounded up, which cuts nothing off: the winner's own row holds y on it.
    """
    may_win = contenders(lower, upper, cells)
    places = np.maximum(cells, 0)
    windows, inputs = len(cells), len(lower)
    is_open = may_win.sum(axis=1) > 1
    known = np.flatnonzero(~is_open)
    winner = places[known, may_win[known].argmax(axis=1)]
    least, most = (np.where(may_win, ends[places], worst) for ends, worst in ((lower, 0.0), (upper, -np.inf)))
    # One entry for each pair of an open window and a cell that may win there.
    row, cell = np.nonzero(may_win & is_open[:, None])
    place, pairs = places[row, cell], np.arange(len(row))
    window = np.flatnonzero(is_open)
    number = np.cumsum(is_open)[row] - 1
    switch = _bound_of_others(most)[row, cell] - least[row, cell]
    # The difference is rounded to nearest: the next float is above the exact one.
    switch = np.nextafter(switch, np.inf)
    x, y, b = place, inputs + row, inputs + windows + pairs
    at, open_y, line = np.arange(len(window)), inputs + window, np.arange(len(known))
    blocks = [
        Rows(len(known), [(line, winner, 1.0), (line, inputs + known, -1.0)], 0.0, 0.0),
        Rows(len(pairs), [(pairs, x, 1.0), (pairs, y, -1.0)], -np.inf, 0.0),
        Rows(len(pairs), [(pairs, x, 1.0), (pairs, y, -1.0), (pairs, b, -switch)], -switch, np.inf),
        Rows(len(at), [(number, b, 1.0)], 1.0, 1.0),
        Rows(
            len(at), [(number, x, 1.0), (at, open_y, -1.0), (number, b, lower[place])], -sum_up(-least[window]), np.inf
        ),
        Rows(len(at), [(at, open_y, -1.0), (number, b, upper[place])], 0.0, np.inf),
    ]
    return Relaxation(*assembled(blocks, inputs + windows + len(pairs)), binaries=len(pairs))


def contenders(lower: np.ndarray, upper: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return a mask `(windows, cells)`: cells of each window of which always at least one attains the maximum."""
    present, places = cells >= 0, np.maximum(cells, 0)
    floors = np.where(present, lower[places], -np.inf)
    may_win: np.ndarray = present & (upper[places] > floors.max(axis=1, keepdims=True))
    may_win[np.arange(len(cells)), floors.argmax(axis=1)] = True
    return may_win


def _bound_of_others(most: np.ndarray) -> np.ndarray:
    """Return for each cell the greatest value of the others in its row, `(windows, cells)`."""
    ordered = np.sort(most, axis=1)
    if ordered.shape[1] == 1:
        return np.full_like(most, -np.inf)
    others = np.repeat(ordered[:, -1:], most.shape[1], axis=1)
    others[np.arange(len(most)), most.argmax(axis=1)] = ordered[:, -2]
    return others
