"""What the numbers of an evaluation say, in sentences."""

from bayesmeta.evaluation.conclusions.overall import conclusions, main_shots, unlike
from bayesmeta.evaluation.conclusions.wording import Conclusion, Verdict

__all__ = ["Conclusion", "Verdict", "conclusions", "main_shots", "unlike"]
