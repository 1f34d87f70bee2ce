"""Predict images of any size: plans of tiles, and what carries them out."""

from fullyconv.inference.estimate import Estimate, estimate_files
from fullyconv.inference.files import Written, predict_files
from fullyconv.inference.outputs import Outputs
from fullyconv.inference.plans import TilePlan
from fullyconv.inference.prediction import Prediction
from fullyconv.inference.predictor import Predictor, predict
from fullyconv.inference.shares import Shares
from fullyconv.inference.tiles import plan_tiles
from fullyconv.inference.verify import Verification, verify_tiles

__all__ = [
    "Estimate",
    "Outputs",
    "Prediction",
    "Predictor",
    "Shares",
    "TilePlan",
    "Verification",
    "Written",
    "estimate_files",
    "plan_tiles",
    "predict",
    "predict_files",
    "verify_tiles",
]
