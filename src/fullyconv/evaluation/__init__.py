"""Score a network on a dataset, beside what needs no network: a constant answer and a threshold."""

from fullyconv.evaluation._evaluation import Evaluation, Rival, verdict
from fullyconv.evaluation._run import ObjectSource, evaluate

__all__ = ["Evaluation", "ObjectSource", "Rival", "evaluate", "verdict"]
