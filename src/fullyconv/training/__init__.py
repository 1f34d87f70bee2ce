"""Training: one loop, what it can be told, and what it chooses by itself."""

from fullyconv.training.callbacks import Callback
from fullyconv.training.choices import choose_augmentation
from fullyconv.training.config import TrainConfig
from fullyconv.training.folds import Folds, cross_validate
from fullyconv.training.networks import NETWORKS, RECIPES
from fullyconv.training.rates import RateCurve, find_rate
from fullyconv.training.recipes import Recipe, read_recipe, write_recipe
from fullyconv.training.rehearsal import Rehearsal, rehearse
from fullyconv.training.result import TrainResult
from fullyconv.training.runs import resume, train

__all__ = [
    "NETWORKS",
    "RECIPES",
    "Callback",
    "Folds",
    "RateCurve",
    "Recipe",
    "Rehearsal",
    "TrainConfig",
    "TrainResult",
    "choose_augmentation",
    "cross_validate",
    "find_rate",
    "read_recipe",
    "rehearse",
    "resume",
    "train",
    "write_recipe",
]
