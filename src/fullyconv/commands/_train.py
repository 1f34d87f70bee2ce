"""From a folder of images and masks to a model."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fullyconv.errors import ConfigError
from fullyconv.progress import Progress

if TYPE_CHECKING:
    from fullyconv.training import Folds, RateCurve, Rehearsal, TrainResult


def train(
    data: Path | None = None,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    find_rate: Annotated[bool, Parameter(negative="")] = False,
    folds: int | None = None,
    recipe: Path | None = None,
    model: Literal["unet", "unet-published", "fcn32s", "fcn16s", "fcn8s", "fcn4s"] | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    frozen_epochs: int | None = None,
    backbone_rate: float | None = None,
    widths: tuple[int, ...] | None = None,
    normalization: Literal["measured", "weights", "none"] | None = None,
    classes: Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    patience: int | None = None,
    crop: int | None = None,
    turns: Literal["all", "mirror", "none"] | None = None,
    variation: Literal["varied", "published", "plain"] | None = None,
    balance: float | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    loss: str | None = None,
    class_weights: Literal["median", "inverse"] | None = None,
    border_weight: float | None = None,
    precision: Literal["auto", "f32", "bf16"] | None = None,
    validation: float | None = None,
    on_error: Literal["stop", "skip"] | None = None,
    track: tuple[str, ...] | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    seed: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> TrainResult | Rehearsal | RateCurve | Folds:
    """Train a network on a folder of images and masks.

    Everything not given is chosen from the data and the machine, and said with the option that overrides it.

    Parameters
    ----------
    data
        A folder with images/ and masks/ of equal names, or train/ and val/ with both.
    out
        The run's folder, new or empty: model.safetensors, recipe.toml, history.jsonl, split/, overlays/.
    resume
        The folder of a run to go on with, after Ctrl-C, a kill or a full disk; DATA only if it was moved.
    dry_run
        Take a few steps, validate, save, and say what the run will take; nothing is kept.
    find_rate
        Try rising learning rates for 100 steps, suggest one, and write rates.csv and rates.png to OUT.
    folds
        Cross-validate: train so many networks, in OUT/fold-1 and so on, each validated on its share of the
        images; the same command goes on after a break.
    recipe
        A TOML file of options, such as the recipe.toml of a run; options given beside it win.
    model
        The kind of network; unet-published is unpadded, with the paper's loss, weights and variation.
    backbone
        A name of torchvision or timm, such as resnet34 (default: a plain one for unet, resnet18 for fcn).
    weights
        Of the backbone: imagenet, a file, or none (default: none).
    start
        A model file to go on from; for other classes the head is new and the rest is kept.
    frozen_epochs
        Epochs in which the backbone stays as it is.
    backbone_rate
        The backbone's learning rate as a share of the others'.
    widths
        Channels at each level of the network, finest first, one option each time.
    normalization
        Of pixel values: as measured, as the weights were trained with, or none (default: of weights, if any).
    classes
        A classes.toml with names, colours and ignored values, where the data has none.
    epochs
        How often the training images are gone through (default 40).
    minutes
        Stop after so many minutes in all.
    steps
        Stop after so many steps.
    patience
        Stop where the best validation is so many epochs ago.
    crop
        Side of the square training crops in pixels (default 256).
    turns
        How crops are mirrored and turned: all ways, left to right only, or not (default: looks).
    variation
        How crops are varied otherwise: a little of everything (default), as published for U-Net, or not.
    balance
        Share of crops, 0 to 1, aimed at a class, each class equally often, so that rare ones are seen.
    batch
        Crops per step (default 8).
    learning_rate
        The peak of the schedule.
    loss
        A sum of losses by name, such as "cross_entropy + 0.5*dice".
    class_weights
        Weigh rare classes more, by median frequency or by inverse frequency (default: all alike).
    border_weight
        Weigh narrow gaps between objects more, as published by 10 (default: 0, but 10 for unet-published).
    precision
        What to compute in; auto measures (default).
    validation
        Share of the images held out where the data has no split (default 0.2).
    on_error
        Stop at a training image that cannot be read any more (default), or skip it, up to 1 % of them.
    track
        Trackers besides history.jsonl and history.csv: tensorboard, wandb, mlflow, ..., one option each time.
    settings
        Any other option as KEY=VALUE, one option each time: a field of TrainConfig, or of its augmentation,
        such as augment.rotation=10.
    seed
        Of the split, the weights, the crops and the augmentation (default 0).
    workers
        Processes that prepare crops (default: by the processor).

    Examples
    --------
    fullyconv train data/ --out runs/first --minutes 20
    """
    from fullyconv import training
    from fullyconv.training.recipes import parse_config

    if os.environ.get("RANK", "0") != "0":  # of many processes the first one reports
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # while the process lives
    if resume is not None:
        return training.resume(resume, data=data, progress=progress)
    told = training.read_recipe(recipe, settings) if recipe else None
    if told:
        data, classes = data or told.data, classes or told.classes
    if data is None or (out is None and not dry_run):
        raise ConfigError(
            f"{'no data' if data is None else 'no folder for the run'}",
            "both",
            "fullyconv train DATA --out RUN, or go on with a run: fullyconv train --resume RUN",
        )
    given = {
        "network": model,
        "backbone": backbone,
        "weights": weights,
        "start": str(start) if start else None,
        "frozen_epochs": frozen_epochs,
        "backbone_rate": backbone_rate,
        "widths": widths,
        "normalization": normalization,
        "epochs": epochs,
        "minutes": minutes,
        "steps": steps,
        "patience": patience,
        "crop": crop,
        "turns": turns,
        "variation": variation,
        "balance": balance,
        "batch": batch,
        "learning_rate": learning_rate,
        "loss": loss,
        "class_weights": class_weights,
        "border_weight": border_weight,
        "precision": precision,
        "validation": validation,
        "on_error": on_error,
        "track": track,
        "seed": seed,
        "workers": workers,
    }
    changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if changes.get("weights") == "none":
        changes["weights"] = None
    usual = told.config if told else training.RECIPES[model or "unet"]
    if usual.augment is not None:  # of a recipe, where it stands for these three
        augment = dataclasses.replace(usual.augment, crop=(crop, crop)) if crop else usual.augment
        changes["augment"] = None if turns or variation else augment
    config = usual.replace(**changes)
    if settings and not told:
        config = parse_config(
            {name: value for name, value in dataclasses.asdict(config).items() if value is not None}, settings
        )
    if dry_run:
        return training.rehearse(None, data, classes=classes, config=config, progress=progress)
    assert out is not None  # refused above
    if find_rate:
        return training.find_rate(None, data, out=out, classes=classes, config=config, progress=progress)
    if folds is not None:
        return training.cross_validate(
            data, folds=folds, out=out, classes=classes, config=config, progress=progress
        )
    return training.train(None, data, out=out, classes=classes, config=config, progress=progress)
