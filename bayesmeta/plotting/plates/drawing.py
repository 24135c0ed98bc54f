"""A plate diagram as SVG, in the text colour of the page it stands on. Nothing but the standard library is needed."""

import html
import math
from dataclasses import dataclass

from bayesmeta.plotting.plates.diagram import Diagram, angle_between, plain

CELL, RADIUS, DOT = 80.0, 21.0, 4.5  # of the grid, of circles and of dots, in pixels
PAD, NEST, CAPTION = 13.0, 11.0, 19.0  # from a node to its plate, from a plate to the one around it, for what it counts
LABEL, COUNTS = 18.0, 13.0  # sizes of letters
SIDES = {"right": 0.0, "below": 0.5 * math.pi, "left": math.pi, "above": 1.5 * math.pi}


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels.

    Example:
        >>> Box(0.0, 0.0, 10.0, 10.0).around(Box(5.0, 5.0, 20.0, 8.0))
        Box(left=0.0, top=0.0, right=20.0, bottom=10.0)
    """

    left: float
    top: float
    right: float
    bottom: float

    def around(self, other: "Box") -> "Box":
        """The smallest one that holds both."""
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def meets(self, other: "Box") -> bool:
        """Whether they have a point in common."""
        apart = self.right < other.left or other.right < self.left
        return not (apart or self.bottom < other.top or other.bottom < self.top)


@dataclass(frozen=True)
class Layout:
    """Where everything of a diagram is, in pixels.

    Attributes:
        centers: of the nodes.
        labels: what is written at or in a node, with the side of a dot that it is on ("" within a circle).
        plates: the rectangles, by what they count.
        captions: where that is written.

    Example:
        >>> from bayesmeta.plotting.plates.models import MODELS
        >>> import bayesmeta as bm
        >>> place = Layout.of(MODELS[bm.Learner])
        >>> place.centers["phi"], place.sides["theta"]
        ((80.0, 0.0), 'above')
    """

    diagram: Diagram
    centers: dict[str, tuple[float, float]]
    sides: dict[str, str]
    plates: dict[str, Box]

    @classmethod
    def of(cls, diagram: Diagram) -> "Layout":
        """Every diagram has one."""
        centers = {node.name: (float(node.at[0] * CELL), float(node.at[1] * CELL)) for node in diagram.nodes}
        sides = {node.name: _side(diagram, node.name) if node.kind == "given" else "" for node in diagram.nodes}
        first = cls(diagram, centers, sides, {})
        boxes: dict[str, Box] = {}
        for label in sorted(diagram.plates, key=lambda key: len(diagram.plates[key].split())):  # the inner ones first
            members = diagram.plates[label].split()
            inner = [box for other, box in boxes.items() if set(diagram.plates[other].split()) < set(members)]
            nodes = [box for name in members for box in (first.circle(name), first.label(name))]
            padded = [_grown(box, PAD, PAD) for box in nodes] + [_grown(box, NEST, NEST) for box in inner]
            box = padded[0]
            for other in padded[1:]:
                box = box.around(other)
            lacking = max(0.0, _width(label, COUNTS) + 16 - (box.right - box.left)) / 2
            boxes[label] = Box(box.left - lacking, box.top, box.right + lacking, box.bottom + CAPTION - 4)
        return cls(diagram, centers, sides, boxes)

    def radius(self, name: str) -> float:
        """Of the circle or dot of a node."""
        return DOT if self.diagram.node[name].kind == "given" else RADIUS

    def circle(self, name: str) -> Box:
        """What the circle or dot of a node fills."""
        (x, y), r = self.centers[name], self.radius(name)
        return Box(x - r, y - r, x + r, y + r)

    def label(self, name: str) -> Box:
        """What the label of a node fills."""
        (x, y), half = self.centers[name], _width(self.diagram.node[name].label, LABEL) / 2
        dx, dy = {
            "": (0.0, 0.0),
            "right": (half + 9, 0.0),
            "left": (-half - 9, 0.0),
            "above": (0.0, -16.0),
            "below": (0.0, 17.0),
        }[self.sides[name]]
        return Box(x + dx - half, y + dy - 9, x + dx + half, y + dy + 10)

    def caption(self, label: str) -> Box:
        """What is filled by what a plate counts, at its lower right."""
        box = self.plates[label]
        return Box(box.right - 8 - _width(label, COUNTS), box.bottom - 16, box.right - 8, box.bottom - 3)

    def arrow(self, a: str, b: str) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where an arrow starts and ends."""
        (x1, y1), (x2, y2) = self.centers[a], self.centers[b]
        length = math.hypot(x2 - x1, y2 - y1)
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        start, end = self.radius(a), self.radius(b) + 1
        return (x1 + ux * start, y1 + uy * start), (x2 - ux * end, y2 - uy * end)

    @property
    def whole(self) -> Box:
        """What all of it fills."""
        boxes = [*self.plates.values()]
        boxes += [box for node in self.diagram.nodes for box in (self.circle(node.name), self.label(node.name))]
        found = boxes[0]
        for box in boxes[1:]:
            found = found.around(box)
        return _grown(found, 2.0, 2.0)


def draw(diagram: Diagram, name: str) -> str:
    """A diagram as the text of an SVG.

    Args:
        diagram: what to draw.
        name: what it is called for readers who do not see it.

    Example:
        >>> from bayesmeta.plotting.plates.models import MODELS
        >>> import bayesmeta as bm
        >>> draw(MODELS[bm.Learner], "a learner")[:48]
        '<svg xmlns="http://www.w3.org/2000/svg" class="p'
    """
    place = Layout.of(diagram)
    parts = [_plate(place, label) for label in place.plates]
    parts += [_arrow(place, a, b, solid) for a, b, solid in diagram.arrows]
    parts += [_node(place, node.name) for node in diagram.nodes]
    box = place.whole
    width, height = box.right - box.left, box.bottom - box.top
    said = html.escape(f"Plate diagram of {name}. {diagram.in_words()}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plate" role="img" aria-label="{said}" '
        f'viewBox="{box.left:.1f} {box.top:.1f} {width:.1f} {height:.1f}" width="{width:.0f}" height="{height:.0f}" '
        f'style="max-width:100%;height:auto" color="currentColor" fill="currentColor" '
        f'font-family="KaTeX_Main, STIX Two Text, Cambria, serif">\n' + "\n".join(parts) + "\n</svg>"
    )


def _plate(place: Layout, label: str) -> str:
    box, caption = place.plates[label], place.caption(label)
    width, height = box.right - box.left, box.bottom - box.top
    return (
        f'<g class="plate-box"><rect x="{box.left:.1f}" y="{box.top:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="7" fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
        f'<text x="{caption.right:.1f}" y="{caption.bottom - 3:.1f}" text-anchor="end" font-size="{COUNTS:g}">'
        f"{_label(label)}</text></g>"
    )


def _arrow(place: Layout, a: str, b: str, solid: bool) -> str:
    (x1, y1), (x2, y2) = place.arrow(a, b)
    length = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    bx, by = x2 - 8 * ux, y2 - 8 * uy
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in ((x2, y2), (bx - 4 * uy, by + 4 * ux), (bx + 4 * uy, by - 4 * ux)))
    dashes = "" if solid else ' stroke-dasharray="5 3"'
    return (
        f'<g class="plate-edge" data-edge="{a} {b}"><path d="M{x1:.1f} {y1:.1f}L{bx:.1f} {by:.1f}" fill="none" '
        f'stroke="currentColor"{dashes}/><polygon points="{points}"/></g>'
    )


def _node(place: Layout, name: str) -> str:
    node, (x, y), box = place.diagram.node[name], place.centers[name], place.label(name)
    shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{place.radius(name):g}" stroke="currentColor" '
    match node.kind:
        case "given":
            shape += 'fill="currentColor"/>'
        case "observed":
            shape += 'stroke-width="1.3" fill="currentColor" fill-opacity="0.22"/>'
        case _:
            shape += 'stroke-width="1.3" fill="none"/>'
    if node.kind == "computed":
        shape += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS - 3:g}" stroke="currentColor" fill="none"/>'
    middle = (box.left + box.right) / 2
    size = LABEL if node.kind == "given" or _width(node.label, LABEL) <= 1.6 * RADIUS else 14.0
    return (
        f'<g class="plate-node" data-node="{name}"><title>{html.escape(f"{plain(node.label)}: {node.says}")}</title>'
        f'{shape}<text x="{middle:.1f}" y="{box.bottom - 5:.1f}" text-anchor="middle" font-style="italic" '
        f'font-size="{size:g}">{_label(node.label)}</text></g>'
    )


def _label(text: str) -> str:
    """A label as SVG, with what is lowered lower."""
    out, rest = [], text
    while "_{" in rest:
        before, _, rest = rest.partition("_{")
        low, _, rest = rest.partition("}")
        raised = f'<tspan dy="-4">{html.escape(rest[:1])}</tspan>' if rest else ""
        out += [html.escape(before), f'<tspan dy="4" font-size="70%">{html.escape(low)}</tspan>', raised]
        rest = rest[1:]
    return "".join([*out, html.escape(rest)])


def _width(label: str, size: float) -> float:
    """About how wide a label is."""
    letters = sum(not 0x300 <= ord(letter) < 0x370 for letter in label)  # combining marks take no room
    low = sum(len(part.partition("}")[0]) for part in label.split("_{")[1:])
    braces = 3 * label.count("_{")
    return size * (0.56 * (letters - low - braces) + 0.42 * low)


def _grown(box: Box, x: float, y: float) -> Box:
    return Box(box.left - x, box.top - y, box.right + x, box.bottom + y)


def _side(diagram: Diagram, name: str) -> str:
    """The side of a dot that is farthest from its arrows."""
    x, y = diagram.node[name].at
    ends = [diagram.node[b if a == name else a].at for a, b, _ in diagram.arrows if name in (a, b)]
    directions = [math.atan2(v - y, u - x) for u, v in ends]

    def room(side: str) -> float:
        return min((angle_between(SIDES[side], direction) for direction in directions), default=math.pi)

    preferred = ("above", "below", "left", "right")
    most = max(room(side) for side in preferred)
    return next(side for side in preferred if room(side) >= min(most, 1.2))
