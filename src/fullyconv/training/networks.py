"""The networks that a run can build for its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch

from fullyconv.backbones import Backbone, build_backbone
from fullyconv.datasets import Dataset, channel_statistics
from fullyconv.errors import ConfigError
from fullyconv.models import FCN, Normalization, SegmentationModel, UNet, load, upgrade
from fullyconv.models.file import KINDS
from fullyconv.models.segmentation import PixelType
from fullyconv.progress import Progress
from fullyconv.training.config import TrainConfig

Builder = Callable[[Dataset, TrainConfig, Progress], SegmentationModel]

WIDTHS = (16, 32, 64, 128, 256)
FCN_BACKBONE = "resnet18"
PUBLISHED_WIDTHS = (64, 128, 256, 512, 1024)


def choose_network(dataset: Dataset, config: TrainConfig, progress: Progress) -> SegmentationModel:
    """Return the network that fits the data, normalised as measured on the training images.

    Weights that were trained with another normalisation keep that one, where the images have its 8 bits.

    Raises
    ------
    ConfigError
        ``config.network`` is no key of `NETWORKS`, or the options do not go with it.
    """
    if config.network not in NETWORKS:
        raise ConfigError(
            f"network {config.network!r}", f"one of {', '.join(NETWORKS)}", "choose one with --model"
        )
    progress.say(f"channels: {dataset.channels}, {dataset.dtype}, as the images have")
    progress.say(f"classes: {', '.join(dataset.classes.names)} (--classes FILE)")
    torch.manual_seed(config.seed)
    if config.start is not None:
        return _refined(_start_from(config.start, dataset, progress), config.network, progress)
    return NETWORKS[config.network](dataset, config, progress)


def _start_from(file: str, dataset: Dataset, progress: Progress) -> SegmentationModel:
    source = load(file)
    if (source.channels, source.normalization.dtype) != (dataset.channels, dataset.dtype):
        raise ConfigError(
            f"{file} for images of {source.channels} channels, {source.normalization.dtype}",
            f"{dataset.channels} channels, {dataset.dtype}, as in {dataset.root}",
            "go on from a model of such images, or leave out --from",
        )
    if source.classes.names == dataset.classes.names:
        progress.say(f"network: {source.architecture.kind}, every weight from {file} (--from)")
        return source
    _, builder = KINDS[source.architecture.kind]
    model = builder(
        classes=dataset.classes,
        channels=source.channels,
        normalization=source.normalization,
        **source.architecture.options(),
    )
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    kept = {name: tensor for name, tensor in source.state_dict().items() if shapes.get(name) == tensor.shape}
    model.load_state_dict(kept, strict=False)
    new = [name for name in shapes if name not in kept]
    progress.say(
        f"network: {source.architecture.kind}, {len(kept)} of {len(shapes)} tensors from {file} (--from); "
        f"new for {len(dataset.classes)} classes in place of {len(source.classes)}: {', '.join(new)}"
    )
    return model


def _refined(model: SegmentationModel, network: str, progress: Progress) -> SegmentationModel:
    """Give an FCN the finer skips that ``network`` asks for: the staged training of the paper."""
    wanted = next((stride for stride in (4, 8, 16) if network == f"fcn{stride}s"), None)
    while isinstance(model, FCN) and wanted is not None and model.finest > wanted:
        model = upgrade(model)
        progress.say(f"network: FCN-{model.finest}s, its new skip starts at zero (--model)")
    return model


def _fcn(stride: int) -> Builder:
    def build(dataset: Dataset, config: TrainConfig, progress: Progress) -> SegmentationModel:
        backbone = build_backbone(
            config.backbone or FCN_BACKBONE, channels=dataset.channels, weights=config.weights
        )
        progress.say(
            f"network: FCN-{stride}s on {backbone.name} (--backbone),"
            f" weights {config.weights or 'none'} (--weights)"
        )
        normalization = _normalization_for(backbone, dataset, config, progress)
        return FCN(
            backbone,
            dataset.classes,
            stride,
            channels=dataset.channels,
            freeze_batch_norm=config.weights is not None,
            normalization=normalization,
        )

    return build


def _unet(dataset: Dataset, config: TrainConfig, progress: Progress) -> SegmentationModel:
    if config.backbone is None:
        widths = config.widths or WIDTHS
        progress.say(f"network: U-Net, widths {_numbers(widths)} (--widths), encoder its own (--backbone)")
        normalization = _normalization(dataset, config, progress)
        return UNet(
            dataset.classes,
            dataset.channels,
            weights=config.weights,
            widths=widths,
            normalization=normalization,
        )
    backbone = build_backbone(config.backbone, channels=dataset.channels, weights=config.weights)
    progress.say(
        f"network: U-Net on {backbone.name} (--backbone), weights {config.weights or 'none'} (--weights)"
    )
    normalization = _normalization_for(backbone, dataset, config, progress)
    return UNet(
        dataset.classes,
        dataset.channels,
        encoder=backbone,
        freeze_batch_norm=config.weights is not None,
        widths=config.widths,
        normalization=normalization,
    )


def _published_unet(dataset: Dataset, config: TrainConfig, progress: Progress) -> SegmentationModel:
    if config.backbone or config.weights:
        raise ConfigError(
            f"backbone {config.backbone}, weights {config.weights} for the published U-Net",
            "neither: it has its own encoder",
            "leave them out, or choose --model unet",
        )
    widths = config.widths or PUBLISHED_WIDTHS
    progress.say(f"network: U-Net as published, unpadded, widths {_numbers(widths)} (--widths)")
    normalization = _normalization(dataset, config, progress)
    return UNet.published(dataset.classes, dataset.channels, widths=widths, normalization=normalization)


def _normalization_for(
    backbone: Backbone, dataset: Dataset, config: TrainConfig, progress: Progress
) -> Normalization:
    for note in backbone.notes:
        progress.say(f"weights: {note}")
    known = config.weights and backbone.normalization and dataset.dtype == "uint8"
    if backbone.normalization and (config.normalization == "weights" or (known and not config.normalization)):
        progress.say("normalisation: that of the weights (--normalization)")
        return Normalization(*backbone.normalization, dtype=cast("PixelType", dataset.dtype))
    return _normalization(dataset, config, progress)


def _normalization(dataset: Dataset, config: TrainConfig, progress: Progress) -> Normalization:
    dtype = cast("PixelType", dataset.dtype)
    if config.normalization == "weights":
        raise ConfigError(
            "normalisation by the weights for a network without trained ones",
            "a backbone whose normalisation is known",
            "choose --normalization measured or none",
        )
    if config.normalization == "none":
        progress.say("normalisation: none (--normalization)")
        return Normalization(dtype=dtype)
    mean, std = channel_statistics(dataset, dataset.split("train"), seed=config.seed)
    progress.say(
        f"normalisation: mean {_numbers(mean)}, std {_numbers(std)}, measured on the training images "
        "(--normalization)"
    )
    return Normalization(tuple(mean), tuple(std), dtype)


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:.4g}" for value in values)


# Name -> what builds the network for a dataset, and says so.
NETWORKS: dict[str, Builder] = {
    "fcn32s": _fcn(32),
    "fcn16s": _fcn(16),
    "fcn8s": _fcn(8),
    "fcn4s": _fcn(4),
    "unet": _unet,
    "unet-published": _published_unet,
}

# Name -> the options its authors train it with, as far as there are such here.
RECIPES: dict[str, TrainConfig] = {
    **{name: TrainConfig(network=name) for name in ("fcn32s", "fcn16s", "fcn8s", "fcn4s")},
    "unet": TrainConfig(),
    "unet-published": TrainConfig(
        network="unet-published", loss="cross_entropy", border_weight=10.0, variation="published"
    ),
}
