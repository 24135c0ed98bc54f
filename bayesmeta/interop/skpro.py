"""To skpro: `MetaRegressor` as one of its probabilistic regressors, whose predictions are skpro's distributions.

Gaussian predictions          Normal
Student's t                   TDistribution
the same mixture at all rows  Mixture of Normals
anything else                 Empirical, of draws that are joint within a task
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from skpro.distributions.empirical import Empirical
from skpro.distributions.mixture import Mixture
from skpro.distributions.normal import Normal
from skpro.distributions.t import TDistribution
from skpro.regression.base import BaseProbaRegressor
from torch import Tensor
from torch.distributions import MixtureSameFamily, StudentT
from torch.distributions import Normal as NormalDistribution

from bayesmeta.distributions import univariate
from bayesmeta.sklearn.answers import Method, predictions
from bayesmeta.sklearn.estimator import read_new
from bayesmeta.sklearn.regressor import MetaRegressor
from bayesmeta.sklearn.table import Column

if TYPE_CHECKING:
    import pandas as pd


class MetaProbaRegressor(BaseProbaRegressor):  # type: ignore[misc]  # skpro has no types
    """Probabilistic regression of rows that belong to tasks, by skpro's interface; `update` learns of more rows.

    A row of a known task is predicted from that task's posterior, any other from the prior predictive. `update` changes
    posteriors, also those of new tasks, and leaves theta as it is.

    Args:
        method: as for `MetaRegressor`.
        task: the column of X that names the task of a row; without one all rows are of one task.
        covariates: columns that are constant within a task.
        steps: gradient steps, or iterations of a full-batch training.
        random_state: of initial weights and training.
        num_draws: of an `Empirical`, which predictions become that skpro has no family for: those of the default method
            are. Methods such as `alpaca-linear` are Gaussian.
        outcome: as for `MetaRegressor`.

    Example:
        >>> import pandas as pd
        >>> from bayesmeta.interop.skpro import MetaProbaRegressor
        >>> X = pd.DataFrame({"subject": list("aaabbbccc"), "days": [0.0, 1, 2] * 3})
        >>> y = pd.DataFrame({"reaction": [250.0, 259, 271, 223, 215, 235, 279, 284, 301]})
        >>> model = MetaProbaRegressor("alpaca-linear", task="subject").fit(X, y)
        >>> new = pd.DataFrame({"subject": ["new"], "days": [3.0]})
        >>> before = model.predict_proba(new)
        >>> type(before).__name__, before.shape
        ('Normal', (1, 1))
        >>> one = pd.DataFrame({"subject": ["new"], "days": [0.0]})
        >>> after = model.update(one, pd.DataFrame({"reaction": [200.0]})).predict_proba(new)
        >>> bool(after.var().iloc[0, 0] < before.var().iloc[0, 0])
        True
    """

    _tags: ClassVar[dict[str, object]] = {
        "capability:multioutput": True,
        "capability:missing": False,
        "capability:update": True,
    }

    def __init__(
        self,
        method: Method = None,
        task: Column | None = None,
        covariates: Sequence[Column] = (),
        steps: int = 5_000,
        random_state: Any = 0,
        num_draws: int = 500,
        outcome: str = "number",
    ) -> None:
        self.method = method
        self.task = task
        self.covariates = covariates
        self.steps = steps
        self.random_state = random_state
        self.num_draws = num_draws
        self.outcome = outcome
        super().__init__()

    def _fit(self, X: "pd.DataFrame", y: "pd.DataFrame") -> "MetaProbaRegressor":
        model = MetaRegressor(
            self.method,
            task=self.task,
            covariates=self.covariates,
            steps=self.steps,
            random_state=self.random_state,
            outcome=self.outcome,
        )
        self.model_, self.columns_ = model.fit(_with_texts(X), y), y.columns
        return self

    def _update(self, X: "pd.DataFrame", y: "pd.DataFrame") -> "MetaProbaRegressor":
        self.model_.partial_fit(_with_texts(X), y)
        return self

    def _predict(self, X: "pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        return pd.DataFrame(self.model_.predict(_with_texts(X)), index=X.index, columns=self.columns_)

    def _predict_proba(self, X: "pd.DataFrame") -> Any:
        model, axes = self.model_, {"index": X.index, "columns": self.columns_}
        table = read_new(model, _with_texts(X), None)
        found = [
            (piece.y[piece.mask].numpy(), piece.mask, univariate(predictive.marginals))
            for piece, predictive in predictions(model.learner_.frozen(), model.tasks_, table)
        ]

        def in_rows(values: Callable[[Any], Tensor]) -> np.ndarray:
            parts = [(rows, values(each)[mask].numpy()) for rows, mask, each in found]
            order = np.argsort(np.concatenate([rows for rows, _ in parts]))
            return np.concatenate([part for _, part in parts])[order]

        kinds = {type(each) for _, _, each in found}
        if kinds == {NormalDistribution}:
            return Normal(in_rows(lambda d: d.loc), in_rows(lambda d: d.scale), **axes)
        if kinds == {StudentT}:
            return TDistribution(in_rows(lambda d: d.loc), in_rows(lambda d: d.scale), in_rows(lambda d: d.df), **axes)
        if kinds == {MixtureSameFamily} and all(_is_of_normals(each) for _, _, each in found):
            weights = in_rows(lambda d: d.mixture_distribution.probs)  # rows C S
            if np.allclose(weights, weights[:1, :1], rtol=0.0, atol=1e-12):
                loc = in_rows(lambda d: d.component_distribution.loc)
                scale = in_rows(lambda d: d.component_distribution.scale)
                parts = [Normal(loc[..., s], scale[..., s], **axes) for s in range(loc.shape[-1])]
                return Mixture(parts, weights[0, 0].tolist())
        draws = model.sample_y(_with_texts(X), self.num_draws, self.random_state)
        return Empirical(_as_sample(draws, **axes), time_indep=False, **axes)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, object]]:
        """Arguments that skpro's own checks construct it with.

        Args:
            parameter_set: which ones; there is one.
        """
        return [{"method": "alpaca-linear", "steps": 5}, {"method": "cnp", "steps": 2, "random_state": 1}]


def _with_texts(X: "pd.DataFrame") -> "pd.DataFrame":
    """Names of columns as texts, which scikit-learn wants."""
    return X.set_axis(X.columns.astype(str), axis=1)


def _is_of_normals(mixture: Any) -> bool:
    return isinstance(mixture.component_distribution, NormalDistribution)


def _as_sample(draws: np.ndarray, index: "pd.Index[Any]", columns: "pd.Index[Any]") -> "pd.DataFrame":
    """Draws `rows C S` as skpro has them: one below the other, by draw and row."""
    import pandas as pd

    places = pd.MultiIndex.from_product([range(draws.shape[-1]), index], names=["sample", index.name])
    return pd.DataFrame(np.concatenate(list(np.moveaxis(draws, -1, 0))), index=places, columns=columns)
