"""The graph of a network as SVG: a box for each node, in order, with lines from what it reads."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from encoders.network import INPUT, Network

# Nodes that are drawn; the others are counted.
MOST = 60
LINE, BOX_WIDTH, BOX_HEIGHT, LEFT = 34, 260, 24, 90


def graph_of(network: Network) -> Markup:
    """Return the graph; what reads the node just above it is joined by a straight line, all else by a bow."""
    nodes = network.nodes[:MOST]
    places = {INPUT: 0, **{node.name: number + 1 for number, node in enumerate(nodes)}}
    shapes = _shapes(network)
    parts = [_box(0, "input", "x".join(map(str, network.input_shape)))]
    for number, node in enumerate(nodes, start=1):
        parts += [_edge(places[name], number) for name in node.inputs if name in places]
        parts.append(_box(number, f"{node.op.kind} {node.name}", shapes[node.name]))
    height = LINE * (len(nodes) + 1) + 8
    rest = len(network.nodes) - len(nodes)
    words = f"{len(network.nodes)} nodes: " + ", ".join(node.op.kind for node in nodes) + (", ..." if rest else "")
    svg = '<svg class="graph" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    drawn = Markup(svg).format(LEFT + BOX_WIDTH + 10, height, words, Markup("").join(parts))
    return drawn + (Markup("<p>and {} further nodes</p>").format(rest) if rest else Markup(""))


def _shapes(network: Network) -> Mapping[str, str]:
    return {name: "x".join(map(str, shape)) for name, shape in network.shapes.items()}


def _box(number: int, name: str, shape: str) -> Markup:
    top = 4 + LINE * number
    text = f"{name[:34]}..." if len(name) > 37 else name
    box = (
        '<g><title>{0}: {1}</title><rect x="{2}" y="{3}" width="{4}" height="{5}" rx="4"/>'
        '<text x="{6}" y="{7}">{8}</text><text x="{9}" y="{7}" text-anchor="end">{1}</text></g>'
    )
    return Markup(box).format(
        name, shape, LEFT, top, BOX_WIDTH, BOX_HEIGHT, LEFT + 8, top + 16, text, LEFT + BOX_WIDTH - 8
    )


def _edge(start: int, end: int) -> Markup:
    if end == start + 1:
        top = 4 + LINE * start + BOX_HEIGHT
        return Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(LEFT + 30, top, top + LINE - BOX_HEIGHT)
    first, last = (4 + LINE * number + BOX_HEIGHT / 2 for number in (start, end))
    reach = min(80, 16 + 6 * (end - start))
    return Markup('<path d="M{0} {1}C{2} {1} {2} {3} {0} {3}"/>').format(LEFT, first, LEFT - reach, last)
