"""The plate diagram of every method: of a family its base class's, of a method its own where it differs.

A class that is not here has the diagram of the nearest class that it inherits from.
"""

from bayesmeta.heads.classifier import HeadClassifier
from bayesmeta.learner import Learner
from bayesmeta.learners.amortized.base import AmortizedLearner
from bayesmeta.learners.amortized.conditional import ConditionalNeuralProcess
from bayesmeta.learners.amortized.conv_cnp import ConvCNP
from bayesmeta.learners.amortized.latent import LatentNeuralProcess
from bayesmeta.learners.amortized.mann import MANN
from bayesmeta.learners.amortized.meta_networks import MetaNetworks
from bayesmeta.learners.amortized.snail import SNAIL
from bayesmeta.learners.amortized.transformer import TransformerNeuralProcess
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.deep_kernel_classifier import DeepKernelClassifier
from bayesmeta.learners.closed_form.hierarchical_process import HierarchicalProcess
from bayesmeta.learners.closed_form.last_layer import LastLayerRegression
from bayesmeta.learners.closed_form.metaoptnet import MetaOptNet
from bayesmeta.learners.closed_form.mixed_effects import MixedEffects
from bayesmeta.learners.closed_form.mixture_alpaca import MixtureALPaCA
from bayesmeta.learners.closed_form.process import ProcessLearner
from bayesmeta.learners.closed_form.r2d2_regressor import R2D2Regressor
from bayesmeta.learners.gradient.alpha_maml import AlphaMAML
from bayesmeta.learners.gradient.base import AscentLearner, ExplicitWeightLearner
from bayesmeta.learners.gradient.bmaml import BMAML
from bayesmeta.learners.gradient.cavia import CAVIA
from bayesmeta.learners.gradient.generalized_linear import GeneralizedLinearMixedModel
from bayesmeta.learners.gradient.maml_plus_plus import MAMLPlusPlus
from bayesmeta.learners.gradient.meta_sgd import MetaSGD
from bayesmeta.learners.gradient.parametric import Parametric
from bayesmeta.learners.metric.base import MetricLearner
from bayesmeta.learners.metric.graph import GraphNetwork
from bayesmeta.learners.metric.infinite_mixture_prototypes import InfiniteMixturePrototypes
from bayesmeta.learners.metric.matching import Matching
from bayesmeta.learners.metric.prototypical import Prototypical
from bayesmeta.learners.metric.relation import Relation
from bayesmeta.learners.metric.siamese import Siamese
from bayesmeta.plotting.plates.diagram import Cells, Diagram, Node
from bayesmeta.wrappers.autoregressive import Autoregressive
from bayesmeta.wrappers.concept import ConceptLearner
from bayesmeta.wrappers.hyper_posterior import HyperPosterior
from bayesmeta.wrappers.log_transformed import LogTransformed
from bayesmeta.wrappers.recalibrated import Recalibrated
from bayesmeta.wrappers.separately import Separately
from bayesmeta.wrappers.stacked import Stacked
from bayesmeta.wrappers.standardized import Standardized
from bayesmeta.wrappers.task_quadrature import TaskQuadrature
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

TASKS, POINTS, SUPPORT, QUERY, CLASSES = (
    "tasks t = 1..T",
    "points n = 1..N",
    "support n",
    "queries m",
    "classes c",
)


def _given(name: str, label: str, x: Cells, y: Cells, says: str) -> Node:
    return Node(name, label, (x, y), "given", says)


def _latent(name: str, label: str, x: Cells, y: Cells, says: str) -> Node:
    return Node(name, label, (x, y), "latent", says)


def _computed(name: str, label: str, x: Cells, y: Cells, says: str) -> Node:
    return Node(name, label, (x, y), "computed", says)


def _observed(name: str, label: str, x: Cells, y: Cells, says: str) -> Node:
    return Node(name, label, (x, y), "observed", says)


def _x(x: Cells, y: Cells, index: str = "n") -> Node:
    return _given("x", f"x_{{t{index}}}", x, y, "inputs of a point")


def _y(x: Cells, y: Cells) -> Node:
    return _observed("y", "y_{tn}", x, y, "outcome of a point")


def _theta(x: Cells, y: Cells, says: str = "meta-parameters") -> Node:
    return _given("theta", "θ", x, y, says)


# --- by gradient steps: the hierarchy itself


def _weights(*above: Node, edges: str = "", phi: Node | None = None) -> Diagram:
    """A prior of theta and what stands above phi; the network's value at a point; its outcome."""
    phi = phi or _latent("phi", "φ_{t}", 1.2, 0, "weights of the network that the task has")
    nodes = (
        _theta(0, 0, "meta-parameters: where all tasks start from"),
        *above,
        phi,
        _x(2.4, 1.25),
        _computed("f", "f_{tn}", 2.4, 0, "what the network says at the point"),
        _y(3.6, 0),
    )
    plates = {TASKS: "phi x f y", POINTS: "x f y"}
    return Diagram(nodes, f"theta>phi phi>f x>f f>y {edges}".strip(), plates, phi="phi")


HIERARCHY = Diagram(
    (
        _theta(0, 0),
        _latent("phi", "φ_{t}", 1, 0, "task parameters"),
        _x(2.2, 1.25),
        _computed("f", "f_{tn}", 2.2, 0, "what the task says at the point"),
        _y(3.4, 0),
    ),
    "theta>phi phi>f x>f f>y",
    {TASKS: "phi x f y", POINTS: "x f y"},
    phi="phi",
)

# --- solved exactly: a last layer


def _last_layer(first: Node, second: Node | None = None) -> Diagram:
    priors = (first,) if second is None else (first, second)
    nodes = (
        *priors,
        _given("noise", "Σ", 2.0, -1.4, "covariance of the noise over the outputs"),
        _latent("W", "W_{t}", 1.3, 0, "last layer of the task"),
        _x(2.7, 2.35),
        _given("network", "θ", 0, 1.25, "weights of the network"),
        _computed("h", "h_{tn}", 2.7, 1.25, "features of the point"),
        _y(2.7, 0),
    )
    edges = " ".join(f"{node.name}>W" for node in priors)
    plates = {TASKS: "W x h y", POINTS: "x h y"}
    return Diagram(nodes, f"{edges} noise>W noise>y network>h x>h h>y W>y", plates, phi="W")


MIXTURE = Diagram(
    (
        _given("pi", "π", 1.5, -1.4, "how frequent the components are"),
        _given("K", "K_{s}", -0.6, -0.3, "prior mean of the last layer"),
        _given("V", "V_{s}", -0.6, 0.6, "prior covariance over features"),
        _latent("s", "s_{t}", 1.5, -0.5, "component that the task is of"),
        _latent("W", "W_{t}", 1.5, 0.6, "last layer of the task"),
        _given("noise", "Σ", 2.7, -1.4, "covariance of the noise over the outputs"),
        _y(2.9, 0.6),
        _computed("h", "h_{tn}", 2.9, 1.8, "features of the point"),
        _x(2.9, 2.9),
        _given("network", "θ", 0, 1.8, "weights of the network"),
    ),
    "pi>s s>W K>W V>W noise>W noise>y W>y h>y x>h network>h",
    {TASKS: "s W y h x", POINTS: "y h x", "components s": "K V"},
    phi="W",
)

MIXED_EFFECTS = Diagram(
    (
        _given("K", "K_{0}", 0, -0.4, "fixed effects"),
        _given("V", "V", 0, 0.4, "covariance of the effects of tasks"),
        _latent("W", "W_{t}", 1.3, 0, "weights of the task: K_0 and what it adds to them"),
        _y(2.7, 0),
        _computed("h", "h_{tn}", 2.7, 1.25, "features of the point"),
        _x(2.7, 2.35),
        _given("noise", "Σ", 2.0, -1.4, "covariance of the noise over the outputs"),
        _latent("B", "B_{gl}", 4.7, 0, "effects of a level, shared by all tasks that have it"),
        _given("Vg", "V_{g}", 4.7, -1.4, "covariance of the effects of a grouping's levels"),
        _given("network", "θ", 0, 1.25, "weights of the network"),
    ),
    "K>W V>W noise>W noise>y W>y B>y Vg>B h>y x>h network>h",
    {TASKS: "W y h x", POINTS: "y h x", "levels l of g": "B"},
    phi="W B",
)


def _scores(weights: Node, prior: str, extra: tuple[str, str] | None = None) -> Diagram:
    nodes = (
        _given("prior", "λ", 0, 0, prior),
        weights,
        _given("network", "θ", 0, 1.25, "weights of the network, and how scores become probabilities"),
        _x(2.6, 2.35),
        _computed("h", "h_{tn}", 2.6, 1.25, "features of the point"),
        _computed("f", "f_{tn}", 2.6, 0, "scores of the classes at the point"),
        _observed("y", "y_{tn}", 3.8, 0, "class of the point"),
    )
    plates = {TASKS: f"{weights.name} x h f y", POINTS: "x h f y"}
    plates |= {CLASSES: weights.name} if "c}" in weights.label else {}
    edges = f"prior>{weights.name} {weights.name}>f network>h x>h h>f f>y"
    return Diagram(nodes, edges, plates, phi=weights.name)


# --- solved exactly: a function


def _process(function: Node, *above: Node, edges: str, noise: tuple[str, str], in_tasks: str = "") -> Diagram:
    nodes = (
        *above,
        function,
        _given("noise", *noise[:1], 2.6, -1.4, noise[1]),
        _y(2.6, 0),
        _x(2.6, 1.25),
    )
    plates = {TASKS: f"{function.name} x y {in_tasks}".strip(), POINTS: "x y"}
    plates |= {CLASSES: function.name} if "c}" in function.label else {}
    return Diagram(nodes, f"{edges} {function.name}>y x>y noise>y", plates, phi=function.name)


# --- by comparison: support on the left, query on the right


def _comparison(
    *middle: Node, edges: str, plates: dict[str, str], phi: str, support: str = "", query: str = ""
) -> Diagram:
    """Both sides have inputs and a class; what compares them is in the middle."""
    nodes = (
        _theta(2.4, -1.3, "meta-parameters: the features, and what compares them"),
        _given("xn", "x_{tn}", 0.9, 0, "inputs of an example"),
        _observed("yn", "y_{tn}", 0.9, 1.25, "class of an example"),
        *middle,
        _given("xm", "x_{tm}", 3.9, 0, "inputs of a query"),
        _latent("ym", "y_{tm}", 3.9, 1.25, "class of a query"),
    )
    inner = " ".join(node.name for node in middle if node.kind != "given")
    sides = {SUPPORT: "xn yn", QUERY: "xm ym"}
    return Diagram(nodes, edges, {TASKS: f"xn yn {inner} xm ym"} | sides | plates, phi=phi)


def _gaussian_classes(middle: Node, plates: dict[str, str], *above: Node, edges: str = "") -> Diagram:
    """Features are what is observed, given the class."""
    nodes = (
        _theta(2.1, -2.1, "meta-parameters: prior of the means, variance within a class, the network"),
        *above,
        _observed("hn", "h_{tn}", 0.9, 0, "features h(x) of an example"),
        _observed("yn", "y_{tn}", 0.9, 1.25, "class of an example"),
        middle,
        _observed("hm", "h_{tm}", 3.7, 0, "features h(x) of a query"),
        _latent("ym", "y_{tm}", 3.7, 1.25, "class of a query"),
        _given("pi", "π", 2.3, 2.4, "how frequent the classes are"),
    )
    name = middle.name
    edges = f"theta>{name} theta>hn theta>hm {name}>hn {name}>hm yn>hn ym>hm pi>yn pi>ym {edges}".strip()
    return Diagram(nodes, edges, {TASKS: f"hn yn {name} hm ym", SUPPORT: "hn yn", QUERY: "hm ym"} | plates, phi=name)


# --- by one pass of a network: support on the left, what is kept of it, query on the right


def _pass(
    kept: Node,
    edges: str,
    *,
    left: tuple[Node, ...] = (),
    plates: dict[str, str] | None = None,
    support: str = "",
    query: str = "",
    phi: str = "",
    reads: str = "theta",
) -> Diagram:
    nodes = (
        _theta(2.7, -1.3, "meta-parameters: the weights of all networks"),
        _given("xn", "x_{tn}", 0, -0.05, "inputs of a support point"),
        _observed("yn", "y_{tn}", 0, 1.1, "outcome of a support point"),
        *left,
        kept,
        _given("xm", "x_{tm}", 4.1, 1.75, "inputs of a query"),
        _computed("f", "f_{tm}", 4.1, 0.5, "what the head makes of: the network's numbers at a query"),
        _observed("y", "y_{tm}", 5.2, 0.5, "outcome of a query"),
    )
    inner = " ".join(node.name for node in (*left, kept))
    sides = {SUPPORT: f"xn yn {support}".strip(), QUERY: f"xm f y {query}".strip()}
    everything = {TASKS: f"xn yn {inner} xm f y"} | sides | (plates or {})
    return Diagram(nodes, f"{edges} theta~f xm~f f>y", everything, phi=phi or kept.name)


READ = _computed("r_n", "r_{tn}", 1.3, 0.5, "what a support point says: the encoder's numbers")


def _neural_process(kept: Node, into: str = "kept") -> Diagram:
    solid = ">" if kept.kind == "latent" else "~"
    edges = f"xn~r_n yn~r_n theta~r_n r_n~{kept.name} {kept.name}{solid}f"
    return _pass(kept, edges, left=(READ,), support="r_n")


def _in_order(symbol: str, says: str) -> Diagram:
    """A state that goes from point to point."""
    before = _computed("before", f"{symbol}_{{t,n-1}}", 1.25, -0.05, f"{says} before the point")
    after = _computed("S", f"{symbol}_{{tn}}", 1.25, 1.1, f"{says} after the point; the last one is what is kept")
    edges = "xn~S yn~S before~S theta~before S~f"
    return _pass(after, edges, left=(before,), support="before S")


MODELS: dict[type, Diagram] = {
    Learner: HIERARCHY,
    # solved exactly
    LastLayerRegression: _last_layer(_given("prior", "K_{0}", 0, 0, "prior of the last layer")),
    ALPaCA: _last_layer(
        _given("K", "K_{0}", 0, -0.4, "prior mean of the last layer"),
        _given("V", "V", 0, 0.4, "prior covariance over features"),
    ),
    R2D2Regressor: _last_layer(_given("prior", "λ", 0, 0, "ridge: the prior precision of the last layer")),
    MixtureALPaCA: MIXTURE,
    MixedEffects: MIXED_EFFECTS,
    HeadClassifier: _scores(
        _latent("W", "W_{t}", 1.3, 0, "last layer of the task"), "ridge: the prior precision of the last layer"
    ),
    MetaOptNet: _scores(
        _latent("w", "w_{tc}", 1.3, 0, "weights of a class in the last layer"), "prior precision of the last layer"
    ),
    DeepKernelClassifier: _process(
        _latent("f", "f_{tc}", 1.3, 0, "function of a class"),
        _given("kernel", "k", 0, 0, "kernel on the features h, and the network"),
        edges="kernel>f",
        noise=("σ²", "variance of the noise of labels as numbers"),
    ),
    ProcessLearner: _process(
        _latent("f", "f_{t}", 1.3, 0, "function of the task"),
        _given("mean", "m", 0, -0.4, "mean function"),
        _given("kernel", "k", 0, 0.4, "kernel on the features h, and the network"),
        edges="mean>f kernel>f",
        noise=("σ²", "variance of the noise"),
    ),
    HierarchicalProcess: _process(
        _latent("f", "f_{t}", 1.3, 0.65, "what the task adds to the mean function"),
        _given("kf", "k_{f}", 0, 0.65, "kernel of what tasks add"),
        _given("km", "k_{m}", 0, -1.4, "kernel of the mean function"),
        _latent("m", "m", 1.3, -1.4, "mean function, which all tasks share"),
        edges="km>m kf>f m>y",
        noise=("σ²", "variance of the noise"),
    ),
    # by gradient steps
    AscentLearner: _weights(
        _given("alpha", "α", 0, 0.75, "step size, which with the number of steps implies the prior covariance Q"),
        edges="alpha>phi",
    ),
    MetaSGD: _weights(
        _given("alpha", "α", 0, 0.75, "a step size for each number of phi, which imply the prior covariance"),
        edges="alpha>phi",
    ),
    MAMLPlusPlus: _weights(
        _given("alpha", "α", 0, 0.75, "a step size for each layer and step, which imply the prior covariance"),
        edges="alpha>phi",
    ),
    AlphaMAML: _weights(
        _given("alpha", "α", 0, 0.75, "step size, learned by its hypergradient; it implies the prior covariance"),
        edges="alpha>phi",
    ),
    ExplicitWeightLearner: _weights(
        _given("precision", "D", 0, 0.75, "prior variances of the weights, explicit"), edges="precision>phi"
    ),
    BMAML: Diagram(
        (
            _theta(0, 0, "meta-parameters: the prior mean, and where the particles start"),
            _latent("phi", "φ_{ts}", 1.2, 0, "weights of a particle"),
            _x(2.6, 1.25),
            _computed("f", "f_{tn}", 2.6, 0, "what the networks of all particles say at the point"),
            _y(3.8, 0),
            _given("precision", "D", 0, 0.75, "prior variance of the weights, explicit"),
        ),
        "theta>phi precision>phi phi>f x>f f>y",
        {TASKS: "phi x f y", "particles s": "phi", POINTS: "x f y"},
        phi="phi",
    ),
    CAVIA: Diagram(
        (
            _latent("c", "c_{t}", 0, 0, "context of the task, N(0, I) before it has points"),
            _theta(1.4, -1.4, "weights of the network, which all tasks share"),
            _x(1.4, 1.25),
            _computed("f", "f_{tn}", 1.4, 0, "what the network says of the inputs and the context"),
            _y(2.6, 0),
        ),
        "c>f theta>f x>f f>y",
        {TASKS: "c x f y", POINTS: "x f y"},
        phi="c",
    ),
    Parametric: Diagram(
        (
            _given("location", "θ", 1.2, -1.4, "location and root L of the covariance of the parameters"),
            _latent("b", "b_{t}", 0, 0, "effects of the task, N(0, I) before it has points"),
            _computed("phi", "η_{t}", 1.2, 0, "parameters of the formula, on the scale on which they are Gaussian"),
            _x(2.4, 1.25),
            _computed("f", "f_{tn}", 2.4, 0, "value of the formula at the point"),
            _y(3.6, 0),
        ),
        "location>phi b>phi phi>f x>f f>y",
        {TASKS: "b phi x f y", POINTS: "x f y"},
        phi="b",
    ),
    GeneralizedLinearMixedModel: Diagram(
        (
            _latent("b", "b_{t}", 0, 0, "effects of the task, N(0, I) before it has points"),
            _given("M", "M", 1.1, -1.4, "weights of the typical task"),
            _given("L", "L", 1.7, -1.4, "root of the covariance of the effects"),
            _x(1.4, 1.25),
            _computed("f", "f_{tn}", 1.4, 0, "predictor at the point"),
            _observed("y", "y_{tn}", 2.6, 0, "outcome: a class, a count, or a number"),
        ),
        "b>f M>f L>f x>f f>y",
        {TASKS: "b x f y", POINTS: "x f y"},
        phi="b",
    ),
    # by comparison
    MetricLearner: _comparison(
        _computed("s", "s_{tc}", 2.4, 0.6, "score of a class at the query"),
        edges="xn~s yn~s xm~s theta~s s~ym",
        plates={CLASSES: "s"},
        phi="ym",
    ),
    Prototypical: _gaussian_classes(_latent("mu", "μ_{tc}", 2.3, 0, "mean of a class"), {CLASSES: "mu"}),
    InfiniteMixturePrototypes: _gaussian_classes(
        _latent("mu", "μ_{tk}", 2.3, 0, "mean of a cluster of a class"),
        {"clusters k": "mu"},
        _given("alpha", "α", 2.5, -1.0, "concentration: how readily a class has another cluster"),
        edges="alpha>mu",
    ),
    Matching: _comparison(
        _computed("k", "k_{tn}", 2.4, 0, "how much an example counts at the query"),
        _latent("q", "q_{tm}", 2.4, 1.25, "class probabilities near the query"),
        _given("prior", "α", 2.4, 2.5, "count of the prior, around the frequencies of the classes"),
        edges="xn~k xm~k theta~k k~q yn~q prior>q q>ym",
        plates={},
        phi="q",
    ),
    Siamese: _comparison(
        _computed("p", "p_{tn}", 2.4, 0, "probability that the query and an example are of one class"),
        _given("pi", "π", 5.2, 1.25, "how frequent the classes are"),
        edges="xn~p xm~p p~ym yn~ym theta~p pi>ym",
        plates={},
        phi="ym",
    ),
    Relation: _comparison(
        _computed("e", "e_{tc}", 2.4, 0.6, "embedding of a class: the mean of its features"),
        edges="xn~e yn~e theta~e e~ym xm~ym",
        plates={CLASSES: "e"},
        phi="e",
    ),
    GraphNetwork: _comparison(
        _computed("u", "u_{tc}", 2.4, 0.6, "labels of the nodes of the graph, after some rounds of messages"),
        edges="xn~u yn~u xm~u theta~u u~ym",
        plates={CLASSES: "u"},
        phi="u",
    ),
    # by one pass of a network
    AmortizedLearner: _neural_process(_computed("r", "r_{t}", 2.7, 0.5, "what is kept of the support")),
    ConditionalNeuralProcess: _neural_process(
        _computed("r", "r_{t}", 2.7, 0.5, "what is kept of the support, whatever the order of its points")
    ),
    LatentNeuralProcess: _neural_process(
        _latent("z", "z_{t}", 2.7, 0.5, "latent vector of the task, N(0, I) before it has points")
    ),
    ConvCNP: _pass(
        _computed("z", "z_{tu}", 2.3, 0.5, "the support as a function on a lattice, after convolutions"),
        "xn~z yn~z theta~z z~f",
        plates={"lattice u": "z"},
    ),
    TransformerNeuralProcess: _pass(
        _computed("z", "z_{tn}", 1.4, 0.5, "token of a support point, which has read the other tokens"),
        "xn~z yn~z theta~z z~f",
        support="z",
    ),
    SNAIL: _in_order("z", "what the blocks keep"),
    MANN: _in_order("S", "state of memory and controller"),
    MetaNetworks: _pass(
        _computed("Wm", "W*_{m}", 2.7, 0.5, "fast weights of a query, looked up among those of the support"),
        "xn~g yn~g theta~g g~Wn Wn~Wm theta~Wm Wm~f",
        left=(
            _computed("g", "g_{n}", 0.9, 0.5, "gradient of a support point in the slow weights"),
            _computed("Wn", "W*_{n}", 1.7, 0.5, "fast weights that a support point asks for"),
        ),
        support="g Wn",
    ),
    # around a learner
    Autoregressive: Diagram(
        (
            _theta(0.9, -1.4),
            _observed("D", "D_{t}", -0.4, 0, "support of the task, and the queries before this one"),
            _given("x", "x_{tm}", 0.9, 1.25, "inputs of a query"),
            _latent("phi", "φ_{t}", 0.9, 0, "task parameters of the learner, given all that comes before"),
            _observed("y", "y_{tm}", 2.2, 0, "outcome of a query, which joins the support of the next one"),
        ),
        "D~phi theta>phi phi>y x>y",
        {TASKS: "D x phi y", "queries m, one by one": "x phi y"},
        phi="phi",
    ),
    HyperPosterior: Diagram(
        (
            _latent("theta", "θ", 0, 0, "meta-parameters, which the tasks leave uncertain"),
            _latent("phi", "φ_{t}", 1.4, 0, "task parameters"),
            _x(2.6, 1.25),
            _computed("f", "f_{tn}", 2.6, 0, "what the task says at the point"),
            _y(3.8, 0),
        ),
        "theta>phi phi>f x>f f>y",
        {TASKS: "phi x f y", POINTS: "x f y"},
        phi="phi",
    ),
    WithHyperprior: Diagram(
        (
            _given("hyperprior", "p(θ)", -1.1, 0, "hyperprior"),
            _latent("theta", "θ", 0, 0, "meta-parameters, which have a prior themselves"),
            _latent("phi", "φ_{t}", 1.4, 0, "task parameters"),
            _x(2.6, 1.25),
            _computed("f", "f_{tn}", 2.6, 0, "what the task says at the point"),
            _y(3.8, 0),
        ),
        "hyperprior>theta theta>phi phi>f x>f f>y",
        {TASKS: "phi x f y", POINTS: "x f y"},
        phi="phi",
    ),
    TaskQuadrature: Diagram(
        (
            _theta(0, 0),
            _latent("z", "z_{t}", 1.2, -1.0, "logarithms of the task's own scales, N(0, I) before it has points"),
            _latent("phi", "φ_{t}", 1.2, 0, "task parameters of the learner, at those scales"),
            _x(2.6, 1.25),
            _y(2.6, 0),
        ),
        "theta>phi z>phi z>y phi>y x>y",
        {TASKS: "z phi x y", POINTS: "x y"},
        phi="phi z",
    ),
    Stacked: Diagram(
        (
            _given("w", "w_{k}", 2.5, -1.5, "weights of the learners by the number of points"),
            _given("theta", "θ_{k}", 0, 0, "meta-parameters of a learner"),
            _latent("phi", "φ_{tk}", 1.2, 0, "task parameters of a learner"),
            _x(2.7, 1.25),
            _y(2.7, 0),
        ),
        "theta>phi phi>y x>y w>y",
        {TASKS: "phi x y", "learners k": "phi", POINTS: "x y"},
        phi="phi",
    ),
    ConceptLearner: Diagram(
        (
            _theta(0, 0, "meta-parameters of the learner, with its features h"),
            _latent("phi", "φ_{t}", 1.2, 0, "task parameters of the learner"),
            _x(2.4, 1.0),
            _y(2.4, 0),
            _given("D", "D", 0, 2.4, "discriminator of all base classes, linear in h"),
            _observed("base", "y_{j}", 1.2, 2.7, "class of a base point, among all base classes"),
            _given("xj", "x_{j}", 2.4, 2.7, "inputs of a base point"),
        ),
        "theta>phi phi>y x>y theta>base D>base xj>base",
        {TASKS: "phi x y", POINTS: "x y", "base points j": "base xj"},
        phi="phi",
    ),
    Recalibrated: Diagram(
        (
            _theta(0, 0),
            _latent("phi", "φ_{t}", 1.1, 0, "task parameters of the learner"),
            _x(2.3, 1.25),
            _computed("f", "p_{tn}", 2.3, 0, "what the learner predicts"),
            _observed("y", "y_{tn}", 3.5, 0, "outcome of a point"),
            _given("correction", "s", 3.5, -1.4, "correction, by the number of support points"),
        ),
        "theta>phi phi>f x>f f>y correction>y",
        {TASKS: "phi x f y", POINTS: "x f y"},
        phi="phi",
    ),
    LogTransformed: Diagram(
        (
            _theta(0, 0),
            _latent("phi", "φ_{t}", 1.1, 0, "task parameters of the learner"),
            _x(2.3, 1.25),
            _latent("z", "z_{tn}", 2.3, 0, "logarithm of the outcome"),
            _observed("y", "y_{tn}", 3.5, 0, "outcome of a point, positive"),
        ),
        "theta>phi phi>z x>z z>y",
        {TASKS: "phi x z y", POINTS: "x z y"},
        phi="phi",
    ),
    Standardized: Diagram(
        (
            _theta(0, 0),
            _latent("phi", "φ_{t}", 1.1, 0, "task parameters of the learner, in standard units"),
            _x(2.3, 1.25),
            _latent("z", "z_{tn}", 2.3, 0, "outcome in standard units"),
            _observed("y", "y_{tn}", 3.5, 0, "outcome in the user's units"),
            _given("m", "m", 3.2, -1.4, "mean of all outcomes"),
            _given("s", "s", 3.8, -1.4, "standard deviation of all outcomes"),
        ),
        "theta>phi phi>z x>z z>y m>y s>y",
        {TASKS: "phi x z y", POINTS: "x z y"},
        phi="phi",
    ),
    Separately: Diagram(
        (
            _given("theta", "θ_{c}", 0, 0, "meta-parameters of an outcome's learner"),
            _latent("phi", "φ_{tc}", 1.2, 0, "task parameters of an outcome"),
            _observed("y", "y_{nc}", 2.5, 0, "an outcome of a point, where it was measured"),
            _given("x", "x_{nc}", 2.5, 1.25, "inputs of a point that has the outcome"),
        ),
        "theta>phi phi>y x>y",
        {"outcomes c = 1..C": "theta phi y x", TASKS: "phi y x", POINTS: "y x"},
        phi="phi",
    ),
}
"""By class: its diagram."""
