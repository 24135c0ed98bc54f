"""Is it better than what does not learn across tasks, or not from the points of a task? Paired, task by task."""

import numpy as np

from bayesmeta.evaluation.conclusions.intervals import ratio
from bayesmeta.evaluation.conclusions.wording import LEVEL, MORE, Conclusion, Sentence, Verdict, grouped
from bayesmeta.evaluation.scores import ShotScores


def against(results: list[ShotScores], others: list[ShotScores], name: str) -> list[Conclusion]:
    """Whether the density of a point is higher than that of a baseline on the same points.

    Args:
        results: at each number of shots.
        others: of the baseline, at the same.
        name: what the baseline is.
    """
    sentences = {
        "ahead": Sentence(
            Verdict.GOOD, f"Better than {name} at {{}}.", "What is learned here is worth having: use this model."
        ),
        "behind": Sentence(
            Verdict.PROBLEM,
            f"Worse than {name} at {{}}.",
            "Take the baseline there, or another method: bayesmeta crossval compares them.",
        ),
        "unknown": Sentence(Verdict.UNKNOWN, f"Not told from {name} at {{}}: the difference is within noise.", MORE),
    }
    groups: dict[str, list[tuple[int, str]]] = {}
    for result, other in zip(results, others, strict=True):
        with np.errstate(invalid="ignore"):
            gain = np.where(
                result.scores["nll"] == other.scores["nll"], 0.0, other.scores["nll"] - result.scores["nll"]
            )
        infinite = gain[np.isinf(gain)]
        if len(infinite):  # an outcome that one of the two gave the density zero
            kind = "ahead" if infinite.min() > 0.0 else "behind"
            groups.setdefault(kind, []).append((result.shots, "a density of zero"))
            continue
        each = ratio(gain, np.ones(len(gain)), LEVEL / len(results))
        kind = "unknown" if each.holds(0.0) else "ahead" if each.estimate > 0.0 else "behind"
        ends = f" ({each.low:+.2f} to {each.high:+.2f})" if np.isfinite(each.low) else ""
        number = f"{each.estimate:+.2f}{ends} nats a point".replace("-", "\N{MINUS SIGN}")
        groups.setdefault(kind, []).append((result.shots, number))
    return grouped("Baselines", groups, sentences)
