"""How good predictions are: scores by shots. The verb is `bayesmeta.evaluate`; `metrics` are the scores one by one."""

from bayesmeta.evaluation.scores import Evaluation, ShotScores
from bayesmeta.evaluation.streamed import StreamedEvaluation, evaluate_stream

__all__ = [
    "Evaluation",
    "ShotScores",
    "StreamedEvaluation",
    "evaluate_stream",
]
