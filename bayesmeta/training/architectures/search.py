"""Progressive search for an architecture: from small to large, with a surrogate, successive halving and a table.

Kim et al. 2018 (Auto-Meta, arXiv:1806.06927), after Liu et al. 2018 (progressive search, arXiv:1712.00559). Here with
networks of whole layers in place of cells, any learner in place of Reptile, and the density of held-out tasks in place
of their accuracy:

    p(a | tasks) ∝ p(a) exp(Σ_t log p(query_t | support_t, theta_a, a)),   t over validation tasks

    phi         that of the learner on the network
    prior       its own; of the architecture, p(a), which prices parameters
    likelihood  that of the learner; of the architecture, the density of query points of validation tasks
    inference   of the learner; of the architecture, the best are found and weighted by p(a | tasks)

1. All architectures with the fewest blocks are trained with the smallest budget.
2. Successive halving (Jamieson and Talwalkar 2016): the best share of them is trained with the next budget, and so on.
3. The survivors, those that were trained with the last one, grow by a block. A surrogate says which of their children
   are worth a trial, and these go on with 2, until there is nothing to grow.
"""

import contextlib
import hashlib
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bayesmeta.arguments import seed_of, whole
from bayesmeta.description import describe
from bayesmeta.errors import ConvergenceWarning, DataError, InferenceError, UnsupportedError
from bayesmeta.evaluation.held_out import predicted
from bayesmeta.learner import Learner
from bayesmeta.networks.network import Network
from bayesmeta.one_line import InShort
from bayesmeta.outputs import require_writable
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import RandomSplit, Split, TaskSource
from bayesmeta.training.architectures.budgets import Budget
from bayesmeta.training.architectures.result import SearchResult
from bayesmeta.training.architectures.spaces import Architecture, Space
from bayesmeta.training.architectures.surrogate import Surrogate
from bayesmeta.training.architectures.trials import Trial, read_trials, write_trials
from bayesmeta.training.fit import fit
from bayesmeta.training.loop import require_done
from bayesmeta.training.objectives import Objective
from bayesmeta.training.runs.folder import EVERY
from bayesmeta.training.runs.settings import digest


class ArchitectureSearch(InShort):
    """Looks for the network of a space with which a learner predicts held-out tasks best.

    Every trial is trained from the same seed, on the same batches, and scored on the same validation tasks.

    Args:
        space: the architectures.
        make: a learner on a network, untrained: `lambda network: bm.MAML(network, steps=2)`.
        budget: of the trials on each rung: `bm.training.Steps` or `bm.training.Seconds`, equal for all sizes.
        candidates: architectures that are tried for each number of blocks but the smallest, of which all are.
        survivors: how many grow, and how many at least have the last budget, in each round.
        keep: share of the trials of a rung that have the next one's budget.
        price: nats that a parameter costs, a priori: log p(a) = -price · parameters.
        batch_size: tasks a step.
        lr: first learning rate.
        split: how points are divided into support and query; `RandomSplit()` by default.
        objective: what is maximised in training; the learner's own loss by default.
        seed: of weights, batches and the division of validation tasks.

    Raises:
        DataError: arguments out of range.

    Example:
        >>> import bayesmeta as bm
        >>> search = ArchitectureSearch(
        ...     bm.training.DenseSpace(1, depths=(1, 2), widths=(4, 8), activations=("relu",), norms=(None,)),
        ...     bm.ALPaCA,
        ...     bm.training.Steps((5, 20)),
        ...     candidates=2,
        ...     survivors=1,
        ...     lr=0.01,
        ... )
        >>> sinusoids = bm.tasks.Sinusoid()
        >>> result = search.run(sinusoids, sinusoids.dataset(20, 10, seed=1))
        >>> result.table()[["depth", "width", "rung", "steps"]].values.tolist()
        [[1, 4, 0, 5], [1, 8, 0, 5], [1, ..., 1, 20], [2, ..., 0, 5], [2, ..., 0, 5], [2, ..., 1, 20]]
        >>> prediction = result.averaged().adapt(bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9])).predict([2.0])
    """

    def __init__(
        self,
        space: Space,
        make: Callable[[Network], Learner],
        budget: Budget,
        *,
        candidates: int = 8,
        survivors: int = 2,
        keep: float = 1.0 / 3.0,
        price: float = 1e-3,
        batch_size: int = 16,
        lr: float = 1e-3,
        split: Split | None = None,
        objective: Objective | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(space, Space):
            raise DataError(f"expected a space such as bm.training.DenseSpace(1), got {type(space).__name__}")
        if not isinstance(budget, Budget):
            raise DataError(f"expected a budget, bm.training.Steps or bm.training.Seconds, got {type(budget).__name__}")
        if not 0.0 < keep <= 1.0 or not 0.0 <= price < math.inf or not 0.0 < lr < math.inf:
            raise DataError(
                f"expected a share to keep in (0, 1], a price >= 0 and a positive lr, got {keep}, {price} and {lr}"
            )
        self.space, self.make, self.budget = space, make, budget
        self.candidates, self.survivors = whole(candidates, "candidates", 1), whole(survivors, "survivors", 1)
        self.keep, self.price, self.lr = keep, price, lr
        self.batch_size, self.seed = whole(batch_size, "batch_size", 1), seed_of(seed)
        self.split, self.objective = RandomSplit() if split is None else split, objective

    def run(
        self,
        tasks: TaskSource,
        validation: TaskDataset,
        trials: str | Path | None = None,
        *,
        checkpoint: str | Path | None = None,
        every: int = EVERY,
        progress: bool = False,
    ) -> SearchResult:
        """Search, or go on with a search that was stopped.

        Args:
            tasks: what is trained on.
            validation: what trials are scored on, with their points divided once. What is found is fitted to them:
                compare it with others on test tasks, which the search never sees.
            trials: a file that is written whole after each trial, a line of JSON each. One that is there already is
                gone on with, and ends as if the search had not been stopped.
            checkpoint: a folder that keeps the trial that is being trained, as `fit` keeps a run: a search that goes on
                goes on in the middle of it. Learners must be such that model folders can hold them.
            every: steps between two states of a trial.
            progress: show a line for each trial.

        Raises:
            DataError: a file of another search.
            InferenceError: no architecture can be trained.
            KeyboardInterrupt: also of SIGTERM where trials are kept, once the state is written.
        """
        path = None if trials is None else Path(trials)
        if path is not None:
            require_writable(path)
        keep = _Keep(None if checkpoint is None else Path(checkpoint), every)
        run = _Run(self, tasks, _Validation(validation, self.split, self.seed), path, keep, progress)
        parents: list[Architecture] = []
        with run.bar:
            for number in range(len(self.space.choices[self.space.blocks])):
                chosen = self.space.smallest() if number == 0 else self._children(parents, run)
                parents = [trial.architecture for trial in self._halving(chosen, number, run)][: self.survivors]
        result = run.result()
        _ = result.finalists  # raises where there are none
        return result

    def _halving(self, alive: Sequence[Architecture], number: int, run: "_Run") -> list[Trial]:
        """The trials of a round with the last budget, the best first."""
        best: list[Trial] = []
        for rung in range(len(self.budget.rungs)):
            made = [run.trial(architecture, number, rung) for architecture in alive]
            best = sorted((t for t in made if not t.failure), key=run.result().log_joint, reverse=True)
            count = max(math.ceil(self.keep * len(made) - 1e-9), self.survivors)
            alive = [trial.architecture for trial in best[:count]]
        return best

    def _children(self, parents: Sequence[Architecture], run: "_Run") -> list[Architecture]:
        """The children that the surrogate finds most promising: by its mean, a deviation of its doubt, and p(a)."""
        pool = list(dict.fromkeys(child for parent in parents for child in self.space.grown(parent)))
        if len(pool) <= self.candidates:
            return pool
        surrogate = Surrogate.fit(self.space, self.budget, run.made)
        mean, deviation = surrogate.scores(pool, len(self.budget.rungs) - 1)
        cost = np.array([self.price * self.space.num_parameters(child) for child in pool]) / run.validation.points
        order = np.argsort(-(mean + deviation - cost), kind="stable")
        return [pool[place] for place in order[: self.candidates]]

    def description(self, tasks: TaskSource, validation: "TaskDataset") -> dict[str, Any]:
        """What decides of the trials, as JSON: two searches with the same have the same trials.

        A learner that cannot be described, as model folders want it, is known by its title.
        """
        with torch.random.fork_rng(devices=[]):
            learner = self.made(self.space.smallest()[0])
        try:
            method = describe(learner)
        except UnsupportedError:
            method = learner.title
        return {
            "learner": method,
            "space": {name: list(values) for name, values in self.space.choices.items()},
            "inputs": list(self.space.x_shape),
            "budget": {type(self.budget).__name__: list(self.budget.rungs)},
            "settings": [self.candidates, self.survivors, self.keep, self.price, self.batch_size, self.lr],
            "split": repr(self.split),
            "objective": type(self.objective).__name__,
            "seed": self.seed,
            "tasks": digest(tasks) if isinstance(tasks, TaskDataset) else type(tasks).__name__,
            "validation": digest(validation),
        }

    def made(self, architecture: Architecture) -> Learner:
        """An untrained learner on the network of an architecture.

        Raises:
            DataError: what `make` returns is no learner.
        """
        learner = self.make(self.space.network(architecture))
        if not isinstance(learner, Learner):
            raise DataError(f"expected make to return a learner, got {type(learner).__name__}")
        return learner


class _Validation:
    """Validation tasks, divided once."""

    def __init__(self, tasks: TaskDataset, split: Split, seed: int) -> None:
        self.tasks = tasks
        self.parts = [(positions, part.divided(split, seed)) for positions, part in tasks.by_length()]
        self.counts = torch.cat([part.query.counts for _, part in self.parts]).cpu()
        self.points = int(self.counts.sum())

    @torch.no_grad()
    def density(self, learner: Learner) -> Tensor:
        """log p(query | support) of each task, nats, in the order of `counts`, on the CPU."""
        with warnings.catch_warnings():  # of adaptation that went wrong the score tells
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = [
                each.predictive.log_prob(each.y, each.mask).double().cpu()
                for _, part in self.parts
                for each in predicted(learner, part.support, part.query)
            ]
        return torch.cat(found)


@dataclass(frozen=True)
class _Keep:
    """Where the trial that is being trained is kept, and how often; nowhere without a folder."""

    folder: Path | None
    every: int

    @contextlib.contextmanager
    def trial(self, architecture: Architecture, steps: int) -> Iterator[dict[str, Any]]:
        """The arguments by which `fit` keeps a trial. Once it is trained and scored, it is removed."""
        if self.folder is None:
            yield {}
            return
        name = hashlib.sha256(repr((architecture.choices, steps)).encode()).hexdigest()[:16]
        yield {"checkpoint": self.folder / f"trial-{name}", "every": self.every, "resume": "auto"}
        shutil.rmtree(self.folder / f"trial-{name}", ignore_errors=True)


class _Run:
    """One search: its trials so far, those of the file, and the learners of the last rung."""

    def __init__(
        self,
        search: ArchitectureSearch,
        tasks: TaskSource,
        validation: _Validation,
        path: Path | None,
        keep: _Keep,
        progress: bool,
    ) -> None:
        self.search, self.tasks, self.validation, self.path, self.keep = search, tasks, validation, path, keep
        self.description = {} if path is None else search.description(tasks, validation.tasks)
        known = [] if path is None else read_trials(path, self.description, search.space)
        self.known = {trial.key: trial for trial in known}
        self.made: list[Trial] = []
        self.learners: dict[Architecture, Learner] = {}
        self.bar = tqdm(disable=not progress, desc="trials", leave=False)

    def result(self) -> SearchResult:
        """What is known so far."""
        search, last = self.search, len(self.search.budget.rungs) - 1
        return SearchResult(tuple(self.made), self.validation.points, last, search.price, self.learner)

    def trial(self, architecture: Architecture, number: int, rung: int) -> Trial:
        """The trial of an architecture on a rung: that of the file, or a new one, which is written to it."""
        trial = self.known.get((architecture, rung))
        if trial is None:
            steps = self.search.budget.steps(rung, partial(self._seconds, architecture))
            with self.keep.trial(architecture, steps) as kept:
                trial = self._tried(architecture, number, rung, steps, kept)
                self.made.append(trial)
                if self.path is not None:
                    write_trials(self.path, self.description, self.made)
        else:
            self.made.append(trial)
        self.bar.update()
        self.bar.set_postfix_str(repr(trial))
        return trial

    def learner(self, trial: Trial) -> Learner:
        """The trained learner of a trial: the one of the search, or the same again."""
        if trial.architecture not in self.learners:
            self.learners[trial.architecture] = self._trained(trial.architecture, trial.steps, {})
        return self.learners[trial.architecture]

    def _tried(self, architecture: Architecture, number: int, rung: int, steps: int, kept: dict[str, Any]) -> Trial:
        search = self.search
        about: dict[str, Any] = {"round": number, "rung": rung, "steps": steps, "seed": search.seed}
        about["parameters"] = search.space.num_parameters(architecture)
        start = time.process_time()
        try:
            learner = self._trained(architecture, steps, kept)
            about["seconds"] = time.process_time() - start
            density = self.validation.density(learner) / self.validation.counts
            if not bool(density.isfinite().all()):
                raise InferenceError("expected finite densities of validation tasks, got others")
        except InferenceError as error:
            about["seconds"] = time.process_time() - start
            return Trial(architecture, failure=str(error), **about)
        if rung == len(search.budget.rungs) - 1:
            self.learners[architecture] = learner
        return Trial.scored(architecture, density.numpy(), self.validation.counts.numpy(), **about)

    def _trained(self, architecture: Architecture, steps: int, kept: dict[str, Any]) -> Learner:
        search = self.search
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(search.seed)
            learner = search.made(architecture)
            result = fit(
                learner,
                self.tasks,
                steps,
                batch_size=search.batch_size,
                lr=search.lr,
                split=search.split,
                objective=search.objective,
                seed=search.seed,
                progress=False,
                **kept,
            )
            require_done(result)
        return learner

    def _seconds(self, architecture: Architecture, steps: int) -> float:
        start = time.process_time()
        self._trained(architecture, steps, {})
        return time.process_time() - start
