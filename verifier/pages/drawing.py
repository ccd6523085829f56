"""Curves and brackets as SVG, whose parts a keyboard reaches and a reader speaks; colours of Okabe and Ito (2008)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 44
# Brackets side by side; more are drawn together.
COLUMNS = 600
# Told apart without colour, too, by their dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b5b00", "#000000")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4")


@dataclass(frozen=True)
class Curve:
    """The share of `inputs` whose end is at least a radius; ends may be infinite, a negative one never counts."""

    name: str
    ends: Sequence[float]
    inputs: int
    colour: int
    dash: int

    def points(self, limit: float) -> list[tuple[float, float]]:
        """Return the corners (radius, share) from 0 to a limit."""
        ends = sorted(end for end in self.ends if end >= 0)
        corners, left = [(0.0, len(ends) / self.inputs)], len(ends)
        for place, end in enumerate(ends):
            if end > limit:
                break
            if place + 1 < len(ends) and ends[place + 1] == end:
                continue
            corners += [(end, left / self.inputs), (end, (left := len(ends) - place - 1) / self.inputs)]
        return [*corners, (limit, left / self.inputs)]


@dataclass(frozen=True)
class Mark:
    """A point of a curve with what is said where it is pointed at."""

    radius: float
    share: float
    colour: int
    words: str


def accuracy_chart(curves: Sequence[Curve], marks: Sequence[Mark], limit: float, norm: str, words: str) -> Markup:
    """Return shares of inputs against the radius; words: what the picture shows, for who does not see it."""
    limit = limit if limit > 0 else 1.0
    parts = [_axes(limit, 1.0, f"radius epsilon ({norm}-norm)", "share of inputs", percent=True)]
    parts += [_curve(curve, limit) for curve in curves]
    circle = (
        '<circle class="mark" tabindex="0" cx="{}" cy="{}" r="4" fill="{}" data-tip="{}" role="img" aria-label="{}"/>'
    )
    for mark in marks:
        place, colour = _place(mark.radius / limit, mark.share), COLOURS[mark.colour % len(COLOURS)]
        parts.append(Markup(circle).format(*place, colour, mark.words, mark.words))
    return _svg(parts, words)


def legend(curves: Sequence[Curve]) -> Markup:
    """Return what stands for which curve."""
    items = [
        Markup(
            '<li><svg class="key" viewBox="0 0 36 8" aria-hidden="true"><line x1="0" y1="4" x2="36" y2="4" '
            'stroke="{}" stroke-width="2.5" stroke-dasharray="{}"/></svg> {}</li>'
        ).format(COLOURS[curve.colour % len(COLOURS)], DASHES[curve.dash % len(DASHES)], curve.name)
        for curve in curves
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def brackets_chart(ends: Sequence[tuple[float, float]], limit: float, norm: str) -> Markup:
    """Return the brackets (lower, upper) of inputs, sorted by their ends and cut to [0, limit].

    Of more than COLUMNS some neighbours share a column, from the least lower to the greatest upper end of them.
    """
    limit = limit if limit > 0 else 1.0
    cut = sorted((min(max(0.0, up), limit), min(max(0.0, low), limit)) for low, up in ends)
    size = max(1, -(-len(cut) // COLUMNS))
    groups = [cut[start : start + size] for start in range(0, len(cut), size)]
    lows, highs = [min(low for _, low in group) for group in groups], [max(up for up, _ in group) for group in groups]
    count = max(1, len(groups))
    proved = _steps([low / limit for low in lows], count)
    found = _steps([high / limit for high in highs], count)
    between = " ".join(f"{x:g},{y:g}" for x, y in [*found, *reversed(proved)])
    lines = [
        Markup('<polygon points="{}" fill="#999999" fill-opacity="0.35"/>').format(between),
        *(
            Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-dasharray="{}"/>').format(
                " ".join(f"{x:g},{y:g}" for x, y in line), COLOURS[place], DASHES[place]
            )
            for place, line in enumerate((proved, found))
        ),
    ]
    together = f" ({size} to a column)" if size > 1 else ""
    axes = _axes(len(cut), limit, f"inputs, sorted by their brackets{together}", f"radius ({norm}-norm), cut")
    words = f"Brackets of {len(cut)} inputs: proved below the lower line, broken above the upper one, open between."
    return _svg([axes, *lines], words)


def _steps(heights: Sequence[float], count: int) -> list[tuple[float, float]]:
    corners = [_place((place + side) / count, height) for place, height in enumerate(heights) for side in (0, 1)]
    return [
        corner for place, corner in enumerate(corners) if place in (0, len(corners) - 1) or not _level(corners, place)
    ]


def _level(corners: Sequence[tuple[float, float]], place: int) -> bool:
    """Return whether a corner lies on the line through its neighbours, level."""
    return corners[place - 1][1] == corners[place][1] == corners[place + 1][1]


def _curve(curve: Curve, limit: float) -> Markup:
    places = list(dict.fromkeys(_place(radius / limit, share) for radius, share in curve.points(limit)))
    points = " ".join(f"{x:g},{y:g}" for x, y in places)
    line = (
        '<polyline points="{}" fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}"><title>{}</title>'
        "</polyline>"
    )
    return Markup(line).format(
        points, COLOURS[curve.colour % len(COLOURS)], DASHES[curve.dash % len(DASHES)], curve.name
    )


def _place(x: float, y: float) -> tuple[float, float]:
    """Return the pixel of two shares, rounded to half of one."""
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return round(2 * (LEFT + across * x)) / 2, round(2 * (TOP + up * (1.0 - min(max(y, 0.0), 1.0)))) / 2


def _axes(largest_x: float, largest_y: float, x_name: str, y_name: str, percent: bool = False) -> Markup:
    parts = []
    for tick in ticks(largest_x):
        x, y = _place(tick / largest_x, 0.0)
        line = (
            '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
            '<text x="{0}" y="{3}" text-anchor="middle">{4}</text>'
        )
        parts.append(Markup(line).format(x, TOP, y, y + 15, f"{tick:.6g}"))
    for tick in ticks(largest_y):
        x, y = _place(0.0, tick / largest_y)
        text = f"{100 * tick:g} %" if percent else f"{tick:.6g}"
        line = (
            '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/><text x="{3}" y="{4}" text-anchor="end">{5}</text>'
        )
        parts.append(Markup(line).format(x, WIDTH - RIGHT, y, x - 5, y + 4, text))
    names = (
        '<text x="{0}" y="{1}" text-anchor="middle">{2}</text>'
        '<text transform="translate(13 {3}) rotate(-90)" text-anchor="middle">{4}</text>'
    )
    middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(Markup(names).format(middle[0], HEIGHT - 8, x_name, middle[1], y_name))
    return Markup("").join(parts)


def ticks(largest: float) -> list[float]:
    """Return round numbers from 0 to at most a largest one, five or so."""
    if not (0 < largest < math.inf):
        return [0.0]
    rough = largest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [step * number for number in range(int(largest / step + 1e-9) + 1)]


def _svg(parts: Sequence[Markup], words: str) -> Markup:
    opening = '<svg class="chart" viewBox="0 0 {} {}" role="group" aria-label="{}">{}</svg>'
    return Markup(opening).format(WIDTH, HEIGHT, words, Markup("").join(parts))
