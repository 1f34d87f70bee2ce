"""A network and what changes it: its loss, gradient and optimizer, and the running average that is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fullyconv.errors import MachineError
from fullyconv.models import SegmentationModel
from fullyconv.progress import Progress
from fullyconv.training.choices import Plan
from fullyconv.training.compilation import compiled
from fullyconv.training.faults import is_out_of_memory
from fullyconv.training.optimization import (
    mean_loss,
    optimizer_tensors,
    parameter_groups,
    restore_optimizer,
    running_average,
)


class Learner:
    """Learns from one batch after another: `gradient`, and `update` if it is one to follow.

    Parameters
    ----------
    accelerator
        Of the processes that share every batch.
    model
        Trained in place.
    plan
        Precision, rates, clipping, average, crops and seed.
    criterion
        The loss by scores, labels, and weights if any.
    progress
        Told when the memory asks for pieces.

    Attributes
    ----------
    network : SegmentationModel
        The model, on the accelerator's device.
    average : AveragedModel
        The running average of its weights, which is scored and kept.
    parts : int
        In how many pieces a batch is computed, for want of memory.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: SegmentationModel,
        plan: Plan,
        criterion: nn.Module,
        progress: Progress,
    ) -> None:
        config = plan.config
        self._accelerator, self._plan, self._progress = accelerator, plan, progress
        self.network = model.to(memory_format=torch.channels_last).train()
        # The precision is ours to switch: an Accelerator's is one for the whole process, once and for all.
        self._bf16 = torch.autocast(accelerator.device.type, torch.bfloat16, enabled=plan.precision == "bf16")
        self._adamw = torch.optim.AdamW(parameter_groups(self.network, config), lr=config.learning_rate)
        self._model, self._optimizer = accelerator.prepare(self.network, self._adamw)
        self._stepped = compiled(self._model, accelerator.device) if config.compile == "on" else self._model
        self.average = AveragedModel(
            self.network, multi_avg_fn=running_average(config.average), use_buffers=True
        )
        self._criterion = criterion.to(accelerator.device)
        self.parts = 1

    def gradient(self, batch: Sequence[Tensor], step: int) -> tuple[float, float]:
        """Leave the clipped gradient of a batch in the parameters; return the loss and the gradient's norm.

        Parameters
        ----------
        batch
            Crops, labels and, where they are weighed, weights, on the accelerator's device.
        step
            Its number: dropout is drawn by it, so that a run can go on at any step.

        Raises
        ------
        MachineError
            There is too little memory for a single crop.
        """
        loss = self._in_pieces(batch, step)
        norm = self._accelerator.clip_grad_norm_(self._model.parameters(), self._plan.config.clip)
        return loss, float(norm)

    def update(self, rate: float) -> None:
        """Follow the gradient by a step at a learning rate, and let the average follow the weights."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.average.update_parameters(self.network)

    def float32_loss(self, batch: Sequence[Tensor]) -> float:
        """Return the loss of a batch without bfloat16 and without compiling."""
        return self._loss(self.network, batch).item()

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors on which the next steps depend, on the CPU, by part and name."""
        parts = {
            "network": self.network.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": optimizer_tensors(self._adamw),
        }
        return {
            f"{part}.{name}": tensor.detach().cpu().contiguous()
            for part, named in parts.items()
            for name, tensor in named.items()
        }

    def restore(self, tensors: Mapping[str, Tensor], averaged: int) -> None:
        """Take the tensors that `tensors` returned, and the number of steps that the average has seen."""
        for part, module in (("network", self.network), ("average", self.average.module)):
            module.load_state_dict(_below(part, tensors))
        restore_optimizer(self._adamw, _below("optimizer", tensors))
        self.average.n_averaged.fill_(averaged)

    def _in_pieces(self, batch: Sequence[Tensor], step: int) -> float:
        """Leave the gradient of a batch in the parameters, in as many pieces as the memory asks for."""
        while True:
            try:
                return self._whole(batch, step)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.parts >= len(batch[0]) or self._accelerator.num_processes > 1:
                    raise MachineError(
                        f"too little memory for a step of {math.ceil(len(batch[0]) / self.parts)} crops of "
                        f"{'×'.join(map(str, self._plan.augment.image_size))}",
                        "a step that fits",
                        "begin anew with a smaller --batch or --crop, or smaller --widths",
                    ) from error
            self._optimizer.zero_grad()
            if self._accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
            self.parts *= 2
            self._progress.say(
                f"memory: too little for a batch at once; from now on it is computed in {self.parts} pieces, "
                "whose gradients are added up; batch normalisation sees one piece at a time"
            )

    def _whole(self, batch: Sequence[Tensor], step: int) -> float:
        place = (self._plan.config.seed, step, self._accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        total = 0.0
        pieces = list(zip(*(torch.tensor_split(part, self.parts) for part in batch), strict=True))
        for piece in pieces:
            last = piece is pieces[-1]
            with nullcontext() if last else self._accelerator.no_sync(self._model), self._bf16:
                loss = self._loss(self._stepped, piece) * (len(piece[0]) / len(batch[0]))
                self._accelerator.backward(loss)
            total += loss.item()
        return total

    def _loss(self, model: Callable[[Tensor], Tensor], batch: Sequence[Tensor]) -> Tensor:
        crops, *truth = batch
        scores = model(crops.contiguous(memory_format=torch.channels_last))
        return mean_loss(self._criterion, scores, truth)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
