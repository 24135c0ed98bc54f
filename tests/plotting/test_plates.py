"""Plate diagrams: every learner has one, of its own symbols, in which nothing hides anything else."""

import importlib
import inspect
import itertools
import math
import re
from xml.etree import ElementTree

import pytest

import bayesmeta as bm
from bayesmeta.plotting import Diagram, Node
from bayesmeta.plotting.plates.drawing import RADIUS, Box, Layout
from bayesmeta.plotting.plates.models import MODELS
from docs.tools.the_field import DOCS, LINES, ROWS
from tests.test_public_api import PUBLIC

LEARNERS = [
    value
    for _, value in PUBLIC
    if isinstance(value, type) and issubclass(value, bm.Learner) and not inspect.isabstract(value)
]
NOTATION = (DOCS / "concepts" / "notation.md").read_text()
SVG = "{http://www.w3.org/2000/svg}"
COIN = (Node("p", "p_{t}", (0, 0), "latent", "chance"), Node("y", "y_{tn}", (1, 0), "observed", "toss"))


def docstring(learner: type[bm.Learner]) -> str:
    return importlib.import_module(learner.__module__).__doc__ or ""


def phi_line(learner: type[bm.Learner]) -> str:
    return dict(re.findall(rf"^    ({'|'.join(LINES)}) +(\S.*)$", docstring(learner), flags=re.M)).get("phi", "")


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.__name__)
def test_a_plate_is_svg_that_says_what_it_shows(learner: type[bm.Learner]) -> None:
    root = ElementTree.fromstring(bm.plotting.plate(learner))
    assert root.get("class") == "plate"
    assert root.get("aria-label", "").startswith(f"Plate diagram of {learner.__name__}. ")
    drawn = bm.plotting.diagram(learner)
    assert [found.get("data-node") for found in root.iter(f"{SVG}g") if found.get("data-node")] == list(drawn.node)
    assert len([found for found in root.iter(f"{SVG}g") if found.get("data-edge")]) == len(drawn.arrows)
    assert any(label.startswith("tasks t") for label in drawn.plates)
    assert {"observed"} <= {node.kind for node in drawn.nodes}


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.__name__)
def test_phi_is_the_docstring_s(learner: type[bm.Learner]) -> None:
    """Where the docstring has a symbol for phi, the diagram has it; where it has none, phi is φ."""
    drawn, said = bm.plotting.diagram(learner), phi_line(learner)
    symbols = [drawn.node[name].symbol for name in drawn.phi.split()]
    assert symbols
    assert symbols == ["φ"] or any(symbol in said + docstring(learner) for symbol in symbols)
    if found := re.match(r"(\S{1,3}?)(_\w+)?(\(x\))?, ", said):
        assert found[1] in symbols


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.__name__)
def test_every_symbol_is_explained(learner: type[bm.Learner]) -> None:
    """In the docstring of the learner, or among the symbols that all share."""
    text = docstring(learner) + NOTATION
    unknown = {node.symbol for node in bm.plotting.diagram(learner).nodes} - {"φ", "θ", "p(θ)"}
    assert {symbol for symbol in unknown if symbol not in text} == set()


def test_every_method_of_the_field_has_its_own_or_its_family_s() -> None:
    learners = [value for row in ROWS for value in row.values if issubclass(value, bm.Learner)]
    wrappers = {"Sampled", "Wrapper"}
    bare = {each.__name__ for each in learners if bm.plotting.diagram(each) is MODELS[bm.Learner]}
    assert bare <= wrappers
    assert all(not inspect.isabstract(each) or each.__subclasses__() for each in MODELS)


def test_nothing_in_several_plates_shares_an_id() -> None:
    """A page may show several."""
    together = "".join(map(bm.plotting.plate, MODELS))
    found = re.findall(r'\bid="([^"]+)"', together)
    assert len(found) == len(set(found))
    assert "url(#" not in together


def test_colours_are_the_page_s() -> None:
    for learner in MODELS:
        text = bm.plotting.plate(learner)
        assert set(re.findall(r'(?:fill|stroke|color)="([^"]+)"', text)) <= {"currentColor", "none"}


# --- geometry

Point = tuple[int | float, int | float]


def distance(point: Point, start: Point, end: Point) -> float:
    """From a point to a segment."""
    (px, py), (ax, ay), (bx, by) = point, start, end
    dx, dy = bx - ax, by - ay
    share = min(1.0, max(0.0, ((px - ax) * dx + (py - ay) * dy) / (dx * dx + dy * dy)))
    return math.hypot(px - ax - share * dx, py - ay - share * dy)


def crosses(first: tuple[Point, Point], second: tuple[Point, Point]) -> bool:
    def side(a: Point, b: Point, c: Point) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    (a, b), (c, d) = first, second
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def through(arrow: tuple[Point, Point], box: Box) -> bool:
    corners = [(box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom)]
    inside = any(box.left < x < box.right and box.top < y < box.bottom for x, y in arrow)
    return inside or any(crosses(arrow, side) for side in zip(corners, corners[1:] + corners[:1], strict=True))


def faults(drawn: Diagram) -> list[str]:
    """What is drawn over something else."""
    place, names = Layout.of(drawn), list(drawn.node)
    found = []
    for a, b in itertools.combinations(names, 2):
        shapes = [(place.circle(a), place.label(a)), (place.circle(b), place.label(b))]
        if any(one.meets(other) for one, other in itertools.product(*shapes)):
            found.append(f"{a} and {b}")
    arrows = {(a, b): place.arrow(a, b) for a, b, _ in drawn.arrows}
    for (a, b), arrow in arrows.items():
        others = [name for name in names if name not in (a, b)]
        near = [name for name in others if distance(place.centers[name], *arrow) < place.radius(name) + 4]
        over = [name for name in names if place.sides[name] and through(arrow, place.label(name))]
        found += [f"{a}-{b} over {name}" for name in (*near, *over)]
        found += [f"{a}-{b} over {label}" for label in place.plates if through(arrow, place.caption(label))]
    found += [
        f"{one} across {other}"
        for one, other in itertools.combinations(arrows, 2)
        if crosses(arrows[one], arrows[other])
    ]
    for label, box in place.plates.items():
        for name in names:
            for what in (place.circle(name), place.label(name)):
                within = box.around(what) == box
                if (name in drawn.plates[label].split()) != within or (not within and box.meets(what)):
                    found.append(f"{name} and the plate of {label}")
                if place.caption(label).meets(what):
                    found.append(f"{name} over {label}")
    for one, other in itertools.combinations(place.plates, 2):
        a, b = place.plates[one], place.plates[other]
        nested = a.around(b) in (a, b)
        shared = set(drawn.plates[one].split()) & set(drawn.plates[other].split())
        if nested != bool(shared) or (not nested and a.meets(b)):
            found.append(f"the plates of {one} and {other}")
        if place.caption(one).meets(place.caption(other)):
            found.append(f"the captions of {one} and {other}")
    return found


@pytest.mark.parametrize("learner", MODELS, ids=lambda learner: learner.__name__)
def test_nothing_overlaps(learner: type[bm.Learner]) -> None:
    assert faults(MODELS[learner]) == []


@pytest.mark.parametrize(
    ("nodes", "edges", "plates"),
    [
        ([(0, 0), (0.2, 0), (2, 0)], "a>c", {}),  # circles on each other
        ([(0, 0), (1, 0), (2, 0)], "a>c", {}),  # an arrow through a circle
        ([(0, 0), (1, 0), (2, 0)], "a>b b>c", {"tasks t": "a c"}),  # a plate around what it does not hold
        ([(0, 0), (0.8, 0), (0.8, 1)], "a>b", {"tasks t": "a", "points n": "b c"}),  # plates that touch
    ],
)
def test_an_overlap_is_found(nodes: list[Point], edges: str, plates: dict[str, str]) -> None:
    made = tuple(Node(name, name, at, "latent", name) for name, at in zip("abc", nodes, strict=True))
    assert faults(Diagram(made, edges, plates, phi="a")) != []


def test_a_diagram_of_ones_own_is_drawn() -> None:
    text = bm.plotting.plate(Diagram(COIN, "p>y", {"coins t": "p y", "tosses n": "y"}, phi="p"))
    assert "coins t" in text
    assert "y_tn, toss (observed), depends on p_t; in coins t, tosses n." in text


@pytest.mark.parametrize(
    ("edges", "plates", "message"),
    [
        ("p>z", {}, "expected names of nodes"),
        ("p y", {}, "expected edges such as"),
        ("p>y", {"coins t": "q"}, "expected names of nodes"),
    ],
)
def test_a_diagram_that_is_none_is_refused(edges: str, plates: dict[str, str], message: str) -> None:
    with pytest.raises(bm.DataError, match=message):
        Diagram(COIN, edges, plates, phi="p")


def test_plates_that_overlap_are_refused() -> None:
    three = (*COIN, Node("z", "z", (2, 0), "latent", "third"))
    with pytest.raises(bm.DataError, match="overlap"):
        Diagram(three, "p>y", {"a": "p y", "b": "y z"}, phi="p")


def test_a_kind_that_is_none_is_refused() -> None:
    with pytest.raises(bm.DataError, match="expected a kind of node"):
        Node("p", "p", (0, 0), "unknown", "chance")


def test_a_class_that_inherits_has_the_plate_of_what_it_inherits_from() -> None:
    class Mine(bm.ALPaCA):
        pass

    assert bm.plotting.diagram(Mine) is MODELS[bm.ALPaCA]


def test_circles_are_as_large_as_they_are_said_to_be() -> None:
    root = ElementTree.fromstring(bm.plotting.plate(bm.MAML))
    assert max(float(circle.get("r", 0)) for circle in root.iter(f"{SVG}circle")) == RADIUS
