"""What a network sees and how the method works, drawn for people."""

from fullyconv.explanation.classmaps import Heatmaps, heatmaps
from fullyconv.explanation.document import Section
from fullyconv.explanation.enlarging import upsampling_figure
from fullyconv.explanation.evidence import (
    Occlusion,
    Question,
    effective_receptive_field,
    integrated_gradients,
    occlusion,
)
from fullyconv.explanation.levels import Level, feature_levels
from fullyconv.explanation.page import Explanation, explain
from fullyconv.explanation.panels import heatmap_figure, save_heatmaps
from fullyconv.explanation.stages import Stage, score_stages
from fullyconv.explanation.toeplitz import matrix_figure

__all__ = [
    "Explanation",
    "Heatmaps",
    "Level",
    "Occlusion",
    "Question",
    "Section",
    "Stage",
    "effective_receptive_field",
    "explain",
    "feature_levels",
    "heatmap_figure",
    "heatmaps",
    "integrated_gradients",
    "matrix_figure",
    "occlusion",
    "save_heatmaps",
    "score_stages",
    "upsampling_figure",
]
