"""Folders of images and masks: understood, checked before they can hurt, augmented and sampled."""

from fullyconv.datasets._augment_config import AUGMENTATIONS, AugmentConfig
from fullyconv.datasets._augmentation import draw_crop
from fullyconv.datasets._check import check
from fullyconv.datasets._checks import (
    CHECKS,
    Check,
    CheckReport,
    ClassShare,
    Correction,
    Problem,
    write_corrected,
    write_sheet,
)
from fullyconv.datasets._dataset import Dataset, open_dataset, split_dataset
from fullyconv.datasets._decoded import decoded_bytes
from fullyconv.datasets._instances import find_instances
from fullyconv.datasets._layouts import LAYOUTS, Sample
from fullyconv.datasets._sampling import CropSampler
from fullyconv.datasets._statistics import channel_statistics, class_counts, looks_upright

__all__ = [
    "AUGMENTATIONS",
    "CHECKS",
    "LAYOUTS",
    "AugmentConfig",
    "Check",
    "CheckReport",
    "ClassShare",
    "Correction",
    "CropSampler",
    "Dataset",
    "Problem",
    "Sample",
    "channel_statistics",
    "check",
    "class_counts",
    "decoded_bytes",
    "draw_crop",
    "find_instances",
    "looks_upright",
    "open_dataset",
    "split_dataset",
    "write_corrected",
    "write_sheet",
]
