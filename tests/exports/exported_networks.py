"""One small network of every kind that ships."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fullyconv.labels import ClassTable
from fullyconv.models import FCN, DensePredictor, Normalization, SegmentationModel, UNet

NORMALIZATION = Normalization(mean=(100.0, 120.0), std=(50.0, 60.0))
CLASSES = ClassTable(("back ground", 'cell "in" <µm & Größe>', "细胞"))
OPTIONS = {"channels": 2, "normalization": NORMALIZATION}


def fcn(stride: int) -> SegmentationModel:
    return FCN("timm:test_resnet", CLASSES, stride, **OPTIONS)


NETWORKS: dict[str, Callable[[], SegmentationModel]] = {
    "unet": lambda: UNet(CLASSES, widths=(4, 8, 8), **OPTIONS),
    "unet as published": lambda: UNet.published(CLASSES, 2, widths=(4, 8, 8), normalization=NORMALIZATION),
    "unet on a backbone": lambda: UNet(CLASSES, encoder="timm:test_resnet", widths=(4,) * 5, **OPTIONS),
    "fcn-32s": lambda: fcn(32),
    "fcn-16s": lambda: fcn(16),
    "fcn-8s": lambda: fcn(8),
    "fcn-4s": lambda: fcn(4),
    "dense classifier": lambda: DensePredictor(
        CLASSES, library="timm", name="test_efficientnet", input_size=(96, 96), **OPTIONS
    ),
}


def built(kind: str = "unet") -> SegmentationModel:
    torch.manual_seed(0)
    model = NETWORKS[kind]().eval()
    for parameter in model.parameters():
        if not parameter.any():  # such as score layers, which start at zero, where nothing can be seen
            torch.nn.init.normal_(parameter, std=0.1)
    return model
