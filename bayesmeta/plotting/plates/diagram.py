"""What a plate diagram says, before it is drawn: variables, what each depends on, and what is repeated."""

import math
import re
from dataclasses import dataclass
from itertools import combinations

from bayesmeta.errors import DataError
from bayesmeta.one_line import InShort

KINDS = {
    "given": "given",
    "latent": "unknown",
    "computed": "computed",
    "observed": "observed",
}
"""Kinds of nodes, in words."""
Cells = int | float
"""A column or row of the grid."""


@dataclass(frozen=True)
class Node(InShort):
    """A variable of a model.

    Attributes:
        name: what edges and plates call it.
        label: as it is drawn, such as "φ_{t}": `_{...}` lowers what it encloses.
        at: column and row of a grid, which may be fractions; rows grow downwards.
        kind: "given" (a dot: inputs and what all tasks share), "latent" (a circle: unknown), "computed" (two circles:
            a function of its parents) or "observed" (a grey circle).
        says: what it is, in words.

    Example:
        >>> from bayesmeta.plotting import Node
        >>> Node("phi", "φ_{t}", (1, 0), "latent", "task parameters").symbol
        'φ'
    """

    name: str
    label: str
    at: tuple[Cells, Cells]
    kind: str
    says: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"expected a kind of node among {', '.join(KINDS)}, got {self.kind!r}")
        if not re.fullmatch(r"\w+", self.name):
            raise DataError(f"expected a name of letters, digits and underscores, got {self.name!r}")

    @property
    def symbol(self) -> str:
        """The label without what is lowered."""
        return self.label.partition("_{")[0]


@dataclass(frozen=True)
class Diagram(InShort):
    """Variables, arrows and plates of a model.

    Attributes:
        nodes: the variables.
        edges: arrows, separated by blanks: `a>b` says that b depends on a in the model, `a~b` that a network or a rule
            computes b from a, which is no part of the model, and is drawn dashed.
        plates: what each plate counts, such as "tasks t = 1..T", and the names of the nodes in it, separated by blanks.
            Two plates have no node in common, or one holds all of the other.
        phi: names of the nodes that are the unknowns of a task, separated by blanks.

    Raises:
        DataError: an edge, a plate or phi names no node, a name is there twice, or two plates overlap.

    Example:
        >>> from bayesmeta.plotting import Diagram, Node
        >>> coin = Diagram(
        ...     (Node("p", "p_{t}", (0, 0), "latent", "chance"), Node("y", "y_{tn}", (1, 0), "observed", "toss")),
        ...     "p>y",
        ...     {"coins t": "p y", "tosses n": "y"},
        ...     phi="p",
        ... )
        >>> coin.arrows
        [('p', 'y', True)]
    """

    nodes: tuple[Node, ...]
    edges: str
    plates: dict[str, str]
    phi: str

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        used = [end for a, b, _ in self.arrows for end in (a, b)]
        used += [name for members in self.plates.values() for name in members.split()] + self.phi.split()
        if unknown := sorted(set(used) - set(names)):
            raise DataError(f"expected names of nodes ({', '.join(names)}), got {', '.join(unknown)}")
        if len(names) != len(set(names)):
            raise DataError(f"expected each name once, got {', '.join(names)}")
        for (a, first), (b, second) in combinations(self.plates.items(), 2):
            one, other = set(first.split()), set(second.split())
            if one & other and not (one <= other or other <= one):
                raise DataError(f"expected plates within each other or apart, got {a!r} and {b!r} that overlap")

    @property
    def arrows(self) -> list[tuple[str, str, bool]]:
        """Of each edge: where it starts, where it ends, and whether it is a part of the model."""
        found = [re.fullmatch(r"(\w+)([>~])(\w+)", edge) for edge in self.edges.split()]
        if None in found:
            raise DataError(f"expected edges such as 'theta>phi x~r', got {self.edges!r}")
        return [(match[1], match[3], match[2] == ">") for match in found if match is not None]

    @property
    def node(self) -> dict[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes}

    def plates_of(self, name: str) -> list[str]:
        """What is counted by the plates that a node is in, the outermost first."""
        found = [label for label, members in self.plates.items() if name in members.split()]
        return sorted(found, key=lambda label: -len(self.plates[label].split()))

    def in_words(self) -> str:
        """The diagram for whoever does not see it: each variable, what it depends on, and the plates.

        Example:
            >>> from bayesmeta.plotting.plates.models import MODELS
            >>> import bayesmeta as bm
            >>> MODELS[bm.Learner].in_words()[:86]
            'θ, meta-parameters (given). φ_t, task parameters (unknown), depends on θ; in tasks t ='
        """
        sentences = []
        for node in self.nodes:
            parents = [(self.node[a], drawn) for a, b, drawn in self.arrows if b == node.name]
            said = f"{plain(node.label)}, {node.says} ({KINDS[node.kind]})"
            for drawn, verb in ((True, "depends on"), (False, "is computed from")):
                if labels := [plain(parent.label) for parent, solid in parents if solid == drawn]:
                    said += f", {verb} {' and '.join([', '.join(labels[:-1]), labels[-1]] if labels[1:] else labels)}"
            if plates := self.plates_of(node.name):
                said += f"; in {', '.join(plates)}"
            sentences.append(said + ".")
        return " ".join(sentences)


def plain(label: str) -> str:
    """A label as text.

    Example:
        >>> plain("φ_{tn}")
        'φ_tn'
    """
    return re.sub(r"_\{([^}]*)\}", r"_\1", label)


def angle_between(a: float, b: float) -> float:
    """The angle between two directions in radians, from 0 to π.

    Example:
        >>> round(angle_between(0.1, 2 * math.pi - 0.1), 3)
        0.2
    """
    return abs((a - b + math.pi) % (2 * math.pi) - math.pi)
