"""Scoring the network on the way: every validation image once, shared by the processes."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel

from fullyconv import images
from fullyconv.datasets import Dataset
from fullyconv.engines import Precision
from fullyconv.inference import Predictor
from fullyconv.metrics import ConfusionMatrix
from fullyconv.models import SegmentationModel
from fullyconv.progress import Progress

SHOWN = 4  # validation images drawn as overlays


class Validation:
    """Scores the running average of a network's weights on the validation images.

    Parameters
    ----------
    accelerator
        Of the processes that share the images.
    average
        Scored as it is at each call.
    dataset
        With a validation split.
    precision
        What to compute in.
    """

    def __init__(
        self, accelerator: Accelerator, average: AveragedModel, dataset: Dataset, precision: Precision
    ) -> None:
        self._accelerator, self._average, self._dataset = accelerator, average, dataset
        self._precision = precision
        self._samples = dataset.split("val")

    @property
    def model(self) -> SegmentationModel:
        """The network with the averaged weights."""
        return cast(SegmentationModel, self._average.module)

    def confusions(self, progress: Progress) -> ConfusionMatrix:
        """Count the confusions of every image, each in one of the processes; the counts are of all."""
        rank, processes = self._accelerator.process_index, self._accelerator.num_processes
        if processes > 1:  # the statistics of batch normalisation are the first process's
            for tensor in self._average.state_dict().values():
                torch.distributed.broadcast(tensor, 0)
        predictor = self._predictor()
        matrix = ConfusionMatrix(len(self._dataset.classes))
        samples = self._samples[rank::processes]
        for done, sample in enumerate(samples):
            image, truth = self._dataset.load(sample)
            matrix.update(truth, predictor.predict(image).labels, self._dataset.classes.ignore_index)
            progress.advance("validating", done + 1, len(samples), "images")
        if processes > 1:
            counts = torch.from_numpy(matrix.counts).to(self._accelerator.device)
            torch.distributed.all_reduce(counts)
            matrix.counts = counts.cpu().numpy()
        return matrix

    def seconds(self) -> float:
        """Measure the prediction of the smallest image and scale it to all."""
        pixels = {sample: math.prod(self._dataset.sizes[sample.name]) for sample in self._samples}
        sample = min(pixels, key=pixels.__getitem__)
        image, _ = self._dataset.load(sample)
        predictor = self._predictor()
        predictor.predict(image)
        started = time.monotonic()
        predictor.predict(image)
        share = sum(pixels.values()) / pixels[sample] / self._accelerator.num_processes
        return float((time.monotonic() - started) * share)

    def draw(self, folder: Path) -> None:
        """Write a few images with their true and their predicted labels side by side."""
        predictor = self._predictor()
        for sample in self._samples[:SHOWN]:
            image, truth = self._dataset.load(sample)
            prediction = predictor.predict(image)
            panels = [
                images.overlay(image, labels, self._dataset.classes) for labels in (truth, prediction.labels)
            ]
            picture = folder / f"{sample.name}.png"  # a name may hold its split's folder
            picture.parent.mkdir(parents=True, exist_ok=True)
            images.write_image(picture, np.concatenate(panels, 1), overwrite=True)

    def _predictor(self) -> Predictor:
        # Weights that change from epoch to epoch are not worth another engine's conversion.
        return Predictor(self.model, engine="torch", precision=self._precision)
