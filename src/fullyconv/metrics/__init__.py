"""Scores of a segmentation, each with what it cannot see.

Every score here is a function of sums over images: pixels by true and predicted class, boundary pixels that
are met, objects that are found, confidences by bin. A dataset is therefore counted in one pass and bounded
memory, and one bootstrap over images (`resample`) gives an interval to every score.

Two rules hold everywhere. Pixels whose true label is the ignore index count nowhere. A class without a
single true pixel has no score (``nan``, shown as n/a) and takes no part in any mean; pixels wrongly given to
it still count against the classes they belong to.
"""

from fullyconv.metrics._bootstrap import RESAMPLINGS, interval, resample
from fullyconv.metrics._boundaries import boundary_sums, score_boundaries
from fullyconv.metrics._calibration import calibration_sums, score_calibration
from fullyconv.metrics._confusion import (
    ConfusionMatrix,
    Scores,
    answer_constantly,
    region_sums,
    score_regions,
)
from fullyconv.metrics._intensity import IntensityHistogram, Threshold
from fullyconv.metrics._objects import OBJECT_THRESHOLDS, find_objects, object_sums, score_objects

__all__ = [
    "OBJECT_THRESHOLDS",
    "RESAMPLINGS",
    "ConfusionMatrix",
    "IntensityHistogram",
    "Scores",
    "Threshold",
    "answer_constantly",
    "boundary_sums",
    "calibration_sums",
    "find_objects",
    "interval",
    "object_sums",
    "region_sums",
    "resample",
    "score_boundaries",
    "score_calibration",
    "score_objects",
    "score_regions",
]
