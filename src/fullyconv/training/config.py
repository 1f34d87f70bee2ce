"""What a training run can be told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from fullyconv.datasets import AugmentConfig
from fullyconv.errors import ConfigError
from fullyconv.losses import CLASS_WEIGHTS, parse_loss


@dataclass(frozen=True)
class TrainConfig:
    """Options of `train`; what is ``None`` is chosen from the data and the machine, and said.

    A field here is a key of a recipe (`fullyconv.training.recipes`) and of ``--set`` on the command line.

    Parameters
    ----------
    network
        What is built where no network is given: a key of `fullyconv.training.NETWORKS`.
    epochs
        How often the training images are gone through; 40 when no other end is given.
    minutes
        Stop after so many minutes in all, validation included; the schedule ends there.
    steps
        Stop after so many steps.
    patience
        Stop where the best validation is so many epochs ago.
    backbone
        A name of torchvision or timm; ``None`` takes a U-Net's own encoder, and a ResNet-18 for an FCN.
    weights
        Of the backbone: "imagenet", a file, or ``None`` for random start values.
    start
        A model file to go on from, in place of a new network; where its classes are others, what depends on
        them is new and the rest is kept.
    frozen_epochs
        For so many epochs the backbone stays as it is and only the rest is trained.
    backbone_rate
        The backbone's learning rate as a share of the others'.
    widths
        Channels at each level of the U-Net that is built.
    normalization
        What raw pixel values are normalised by: "measured" on the training images, that of the "weights", or
        "none"; ``None`` takes that of the weights where there are some and the images have their 8 bits.
    batch
        Crops per step.
    learning_rate
        The peak of the cosine schedule (AdamW).
    weight_decay
        AdamW's; weights only, not biases and norms.
    warmup
        Share of the run, 0 to 1, in which the learning rate rises from 0 to its peak.
    loss
        A sum such as ``"cross_entropy + 0.5*dice"`` of names in `fullyconv.losses.LOSSES`.
    class_weights
        Weigh rare classes more: a key of `fullyconv.losses.CLASS_WEIGHTS` ("median", "inverse"), computed
        from the training masks; ``None`` weighs all alike.
    crop
        Side in pixels of the square crops where ``augment`` is ``None``.
    turns
        How crops are mirrored and turned where ``augment`` is ``None``: see `choose_augmentation`.
    balance
        Share of crops, 0 to 1, that are aimed at a class, each class equally often: see `CropSampler`.
    variation
        How crops are varied where ``augment`` is ``None``: a key of `fullyconv.datasets.AUGMENTATIONS`.
    border_weight
        w0 of U-Net's weight map, 10 as published: pixels in narrow gaps between objects count more, and
        classes are balanced. 0 weighs all pixels alike.
    border_sigma
        σ of that map in pixels.
    average
        Decay per step of the running average of the weights that is validated and kept; 0 keeps the weights
        themselves.
    clip
        The largest norm of the gradient, longer ones are shortened to it.
    precision
        ``"f32"``, ``"bf16"`` (mixed), or ``"auto"``: the faster of both in a short measurement.
    compile
        Whether steps are compiled (`torch.compile`): "on", "off", or "auto": in a long run that it shortens,
        by a short measurement.
    validation
        Share of the images, 0 to 1, held out where the data has no split of its own.
    seed
        Of the split, the initial weights, the crops and the augmentation.
    workers
        Processes that prepare crops; 0 prepares them in this one, ``None`` chooses by the processor.
    cache
        Where decoded training images are kept: in "memory", on the "disk" of the run's folder, or not at all
        ("none"); "auto" takes the first that has room.
    on_error
        What to do with a training image that cannot be read any more: "stop", or "skip" it, up to 1 % of them
        (one of fewer than 200).
    track
        Trackers of experiments that Accelerate knows, such as "tensorboard", "wandb", "mlflow".
    augment
        The augmentation, with the crop's size in ``augment.crop``; ``None`` chooses.
    """

    network: str = "unet"
    epochs: int | None = None
    minutes: float | None = None
    steps: int | None = None
    patience: int | None = None
    backbone: str | None = None
    weights: str | None = None
    start: str | None = None
    frozen_epochs: int = 0
    backbone_rate: float = 1.0
    widths: tuple[int, ...] | None = None
    normalization: Literal["measured", "weights", "none"] | None = None
    batch: int | None = None
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    loss: str = "cross_entropy + dice"
    class_weights: str | None = None
    crop: int = 256
    turns: Literal["all", "mirror", "none"] | None = None
    balance: float = 0.0
    variation: str = "varied"
    border_weight: float = 0.0
    border_sigma: float = 5.0
    average: float = 0.998
    clip: float = 1.0
    precision: Literal["auto", "f32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    validation: float = 0.2
    seed: int = 0
    workers: int | None = None
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    on_error: Literal["stop", "skip"] = "stop"
    track: tuple[str, ...] = ()
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        allowed = {
            "epochs": (1, float("inf")),
            "minutes": (0.01, float("inf")),
            "steps": (1, float("inf")),
            "patience": (1, float("inf")),
            "crop": (1, 2**20),
            "batch": (1, float("inf")),
            "frozen_epochs": (0, float("inf")),
            "backbone_rate": (0.0, 100.0),
            "learning_rate": (1e-12, 100.0),
            "weight_decay": (0.0, 100.0),
            "warmup": (0.0, 0.9),
            "balance": (0.0, 1.0),
            "border_weight": (0.0, 1e6),
            "border_sigma": (1e-3, 1e6),
            "average": (0.0, 0.999999),
            "clip": (1e-12, float("inf")),
            "validation": (0.01, 0.9),
            "seed": (0, 2**63 - 1),
            "workers": (0, 1024),
        }
        parse_loss(self.loss)  # raises before anything is begun
        if self.class_weights is not None and self.class_weights not in CLASS_WEIGHTS:
            raise ConfigError(
                f"class_weights = {self.class_weights!r}",
                f"one of {', '.join(CLASS_WEIGHTS)}, or none",
                "correct --class-weights",
            )
        for name, (low, high) in allowed.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(
                    f"{name} = {value}", f"{low:g} to {high:g}", f"correct --{name.replace('_', '-')}"
                )

    def replace(self, **changes: object) -> TrainConfig:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # checked by __post_init__
