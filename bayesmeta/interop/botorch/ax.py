"""To Ax: an experiment that is one more task of those that a learner was trained on.

    client = ax.Client(); client.configure_experiment(...); client.configure_optimization(...)
    client.set_generation_strategy(generation_strategy(learner))

The first trial is where the learner expects most, before any data; every other is chosen by an acquisition function of
Ax's on the posterior of the task.
"""

from typing import Any

import torch
from botorch.utils.datasets import SupervisedDataset
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from bayesmeta.errors import UnsupportedError
from bayesmeta.interop.botorch.posteriors import PartsPosterior
from bayesmeta.interop.botorch.task_model import TaskModel, adapted
from bayesmeta.learner import Learner

try:
    from ax.adapter.registry import Generators
    from ax.core.experiment import Experiment
    from ax.core.parameter import RangeParameter
    from ax.core.search_space import SearchSpace
    from ax.core.types import TParameterization
    from ax.generation_strategy.external_generation_node import ExternalGenerationNode
    from ax.generation_strategy.generation_node import GenerationNode
    from ax.generation_strategy.generation_strategy import GenerationStrategy
    from ax.generation_strategy.generator_spec import GeneratorSpec
    from ax.generation_strategy.transition_criterion import MinTrials
    from ax.generators.torch.botorch_modular.surrogate import SurrogateSpec
    from ax.generators.torch.botorch_modular.utils import ModelConfig, fit_botorch_model
except ImportError as error:
    raise UnsupportedError("expected the package ax-platform: pip install 'bayesmeta[ax]'") from error

CANDIDATES = 1024  # places at which the first trial may be


class AxModel(TaskModel):
    """The surrogate of an Ax experiment that is one more task of those that a learner was trained on.

    Ax makes it anew after every trial, from all trials; `generation_strategy` tells it how. Inputs come in the order of
    the experiment's parameters, in the user's units.

    Args:
        train_X: the inputs of the trials.
        train_Y: their outcomes.
        train_Yvar: known noise variances of these; variances of zero, and those that are not numbers, are not known.
        learner: trained on other tasks.
        input_transform: must be None.
        outcome_transform: must be None.

    Raises:
        UnsupportedError: a transform is given, or noise is known for which the learner has no place.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch.ax import AxModel
        >>> x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.2], [0.7]]).double()
        >>> AxModel(x, y, learner=bm.ALPaCA(bm.Identity(1))).posterior(x).mean.shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        train_X: Float[Tensor, "n d"],
        train_Y: Float[Tensor, "n m"],
        train_Yvar: Float[Tensor, "n m"] | None = None,
        learner: Learner | None = None,
        input_transform: Any = None,
        outcome_transform: Any = None,
    ) -> None:  # Ax looks for the names of its transforms among the positional arguments
        if learner is None:
            raise UnsupportedError("expected a learner, got none: ModelConfig(model_options={'learner': learner})")
        known = None if train_Yvar is None or not bool((train_Yvar > 0.0).any()) else train_Yvar.nan_to_num(0.0)
        super().__init__(*adapted(learner, train_X, train_Y, known, input_transform, outcome_transform))

    @classmethod
    def construct_inputs(cls, training_data: SupervisedDataset, **options: Any) -> dict[str, Any]:
        """What the constructor is called with, as Ax asks for it.

        Args:
            training_data: the trials.
            options: those of the model's configuration, among them the learner.
        """
        return super().construct_inputs(training_data) | {"learner": options.get("learner")}


@fit_botorch_model.register(AxModel)  # type: ignore[untyped-decorator]
def _fit(model: AxModel, mll_class: Any, mll_options: dict[str, Any] | None = None) -> None:
    """Do nothing: theta was learned from other tasks."""


class FirstTrial(ExternalGenerationNode):
    """The trials of an Ax experiment that has no data yet: where the learner expects most of a task.

    Further ones, while the first is under way, are where draws of the function from the prior are largest.

    Args:
        learner: trained on other tasks.
        next_node_name: what follows when a trial has data.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch.ax import FirstTrial
        >>> FirstTrial(bm.ALPaCA(bm.Identity(2)), next_node_name="bayesmeta").name
        'bayesmeta, prior'
    """

    def __init__(self, learner: Learner, next_node_name: str) -> None:
        has_data = MinTrials(
            threshold=1,
            transition_to=next_node_name,
            use_all_trials_in_exp=True,
            count_only_trials_with_data=True,
        )
        super().__init__(name="bayesmeta, prior", transition_criteria=[has_data])
        self.learner = learner
        self.names: list[str] = []
        self.whole: list[bool] = []
        self.bounds = torch.zeros(2, 0, dtype=torch.float64)
        self.sign = 1.0
        self.search_space: SearchSpace | None = None

    def update_generator_state(self, experiment: Experiment, data: Any) -> None:
        """Take the search space and the objective.

        Args:
            experiment: the experiment.
            data: not looked at.

        Raises:
            UnsupportedError: parameters that are no ranges, or not one objective.
        """
        parameters = list(experiment.search_space.parameters.values())
        ranges = [each for each in parameters if isinstance(each, RangeParameter)]
        config = experiment.optimization_config
        if len(ranges) < len(parameters) or config is None or config.is_moo_problem:
            raise UnsupportedError(
                f"expected parameters that are ranges, and one objective, got {parameters} and {config}: attach the "
                "first trial yourself"
            )
        self.names = [each.name for each in ranges]
        self.whole = [each.python_type is int for each in ranges]
        self.bounds = torch.tensor([[each.lower, each.upper] for each in ranges], dtype=torch.float64).mT
        self.search_space = experiment.search_space
        self.sign = -1.0 if config.objective.minimize else 1.0

    def get_next_candidate(self, pending_parameters: list[TParameterization]) -> TParameterization:
        """The place of the largest prior mean, or where trials are pending of a largest draw.

        Args:
            pending_parameters: of the trials that are under way.
        """
        lower, upper = self.bounds
        unit = SobolEngine(len(lower), scramble=True, seed=len(pending_parameters)).draw(CANDIDATES).double()
        x = lower + (upper - lower) * unit
        whole = torch.tensor(self.whole)
        x = torch.where(whole, x.round(), x)
        if self.search_space is not None and self.search_space.parameter_constraints:
            allowed = [self.search_space.check_membership(self._named(row)) for row in x.tolist()]
            x = x[torch.tensor(allowed)]
        model = TaskModel.adapted(self.learner, x[:0], x[:0, :1])
        with torch.no_grad():
            draw = model.posterior(x).rsample() if pending_parameters else PartsPosterior(model.parts(x[:, None])).mean
        return self._named(x[(self.sign * draw.flatten()).argmax()].tolist())

    def _named(self, values: list[float]) -> TParameterization:
        return {n: round(v) if w else v for n, v, w in zip(self.names, values, self.whole, strict=True)}


def generation_strategy(learner: Learner, **options: Any) -> GenerationStrategy:
    """How an Ax experiment goes on that is one more task of those that a learner was trained on.

    Trials that have been attached count as any other. Ax's own transforms are off, as the learner
    knows the units of its tasks: ranges of the search space are to be given in these.

    Args:
        learner: trained on other tasks, of one metric; its inputs are the experiment's parameters, in their order.
        options: further arguments of Ax's BoTorch generator, such as `botorch_acqf_class`.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch.ax import generation_strategy
        >>> generation_strategy(bm.ALPaCA(bm.Identity(2))).name
        'bayesmeta'
    """
    config = ModelConfig(
        botorch_model_class=AxModel,
        model_options={"learner": learner},
        input_transform_classes=None,
        outcome_transform_classes=[],
        name="bayesmeta",
    )
    spec = GeneratorSpec(
        generator_enum=Generators.BOTORCH_MODULAR,
        generator_kwargs={"surrogate_spec": SurrogateSpec(model_configs=[config]), "transforms": [], **options},
    )
    nodes = [FirstTrial(learner, next_node_name="bayesmeta"), GenerationNode(name="bayesmeta", generator_specs=[spec])]
    return GenerationStrategy(name="bayesmeta", nodes=nodes)
