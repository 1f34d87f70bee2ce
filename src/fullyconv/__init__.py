"""Semantic segmentation with fully convolutional networks, from classifier to pixels.

The names below are the public surface; each is loaded when it is first used, so that importing the package
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fullyconv.backbones import Backbone as Backbone
    from fullyconv.classifiers import Classifier as Classifier
    from fullyconv.classifiers import load_classifier as load_classifier
    from fullyconv.datasets import AugmentConfig as AugmentConfig
    from fullyconv.datasets import CheckReport as CheckReport
    from fullyconv.datasets import check as check
    from fullyconv.datasets import open_dataset as open_dataset
    from fullyconv.errors import FullyconvError as FullyconvError
    from fullyconv.evaluation import Evaluation as Evaluation
    from fullyconv.evaluation import evaluate as evaluate
    from fullyconv.explanation import Explanation as Explanation
    from fullyconv.explanation import Heatmaps as Heatmaps
    from fullyconv.explanation import explain as explain
    from fullyconv.explanation import heatmaps as heatmaps
    from fullyconv.exports import Export as Export
    from fullyconv.exports import export as export
    from fullyconv.hub import from_pretrained as from_pretrained
    from fullyconv.hub import push_to_hub as push_to_hub
    from fullyconv.hub import save_pretrained as save_pretrained
    from fullyconv.inference import Prediction as Prediction
    from fullyconv.inference import predict as predict
    from fullyconv.labels import ClassTable as ClassTable
    from fullyconv.models import FCN as FCN
    from fullyconv.models import DensePredictor as DensePredictor
    from fullyconv.models import SegmentationModel as SegmentationModel
    from fullyconv.models import UNet as UNet
    from fullyconv.models import load as load
    from fullyconv.models import save as save
    from fullyconv.models import upgrade as upgrade
    from fullyconv.surgery import DenseClassifier as DenseClassifier
    from fullyconv.surgery import compare_with_windows as compare_with_windows
    from fullyconv.surgery import conv_matrix as conv_matrix
    from fullyconv.surgery import conv_to_linear as conv_to_linear
    from fullyconv.surgery import conv_transpose_matrix as conv_transpose_matrix
    from fullyconv.surgery import convolutionalize as convolutionalize
    from fullyconv.surgery import dilate as dilate
    from fullyconv.surgery import linear_to_conv as linear_to_conv
    from fullyconv.surgery import shift_and_stitch as shift_and_stitch
    from fullyconv.surgery import transplant as transplant
    from fullyconv.training import TrainConfig as TrainConfig
    from fullyconv.training import TrainResult as TrainResult
    from fullyconv.training import train as train

_HOME = {
    "AugmentConfig": "datasets",
    "Backbone": "backbones",
    "CheckReport": "datasets",
    "ClassTable": "labels",
    "Classifier": "classifiers",
    "DenseClassifier": "surgery",
    "DensePredictor": "models",
    "Evaluation": "evaluation",
    "Explanation": "explanation",
    "Export": "exports",
    "FCN": "models",
    "FullyconvError": "errors",
    "Heatmaps": "explanation",
    "Prediction": "inference",
    "SegmentationModel": "models",
    "TrainConfig": "training",
    "TrainResult": "training",
    "UNet": "models",
    "check": "datasets",
    "compare_with_windows": "surgery",
    "conv_matrix": "surgery",
    "conv_to_linear": "surgery",
    "conv_transpose_matrix": "surgery",
    "convolutionalize": "surgery",
    "dilate": "surgery",
    "evaluate": "evaluation",
    "explain": "explanation",
    "export": "exports",
    "from_pretrained": "hub",
    "heatmaps": "explanation",
    "linear_to_conv": "surgery",
    "load": "models",
    "load_classifier": "classifiers",
    "open_dataset": "datasets",
    "predict": "inference",
    "push_to_hub": "hub",
    "save": "models",
    "save_pretrained": "hub",
    "shift_and_stitch": "surgery",
    "train": "training",
    "transplant": "surgery",
    "upgrade": "models",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fullyconv' has no attribute {name!r}")
    return getattr(import_module(f"fullyconv.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
