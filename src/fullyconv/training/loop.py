"""The training loop."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from fullyconv.datasets import CropSampler, Dataset
from fullyconv.errors import ConfigError, DataError, MachineError
from fullyconv.evaluation import Evaluation, evaluate
from fullyconv.inference import Predictor
from fullyconv.losses import parse_loss
from fullyconv.metrics import ConfusionMatrix, Scores
from fullyconv.models import FCN, Provenance, SegmentationModel, UNet, load, save
from fullyconv.models.segmentation import ScoreName
from fullyconv.progress import Progress
from fullyconv.training.batches import Batches
from fullyconv.training.callbacks import Callback, trackers_of
from fullyconv.training.checkpoints import KEPT, Checkpoints, State
from fullyconv.training.choices import Plan
from fullyconv.training.faults import not_finite
from fullyconv.training.folder import CHECKPOINTS, MODEL
from fullyconv.training.history import History
from fullyconv.training.interruption import Checking, Interruption, Stopped
from fullyconv.training.learner import Learner
from fullyconv.training.optimization import freeze_batch_norm
from fullyconv.training.preparation import class_weights_for, keeping, weighing
from fullyconv.training.processes import agreed
from fullyconv.training.result import TrainResult
from fullyconv.training.schedule import Clock, learning_rate
from fullyconv.training.validation import Validation

SAVE_SECONDS = 60.0  # between checkpoints, where saving one takes less than SAVE_SHARE of that
SAVE_SHARE = 0.01


class Run:
    """One run: the loop in `fit`, what it needs in the rest.

    Parameters
    ----------
    accelerator
        Of the processes that train together.
    model
        Trained in place.
    dataset
        With a validation split.
    plan
        What to do.
    out
        The run's folder, begun.
    progress
        Told how it goes.
    clock
        Started when the run was.
    fingerprint
        The dataset's.
    callbacks
        Told of every step and every validated epoch, in the first process.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: SegmentationModel,
        dataset: Dataset,
        plan: Plan,
        out: Path,
        progress: Progress,
        clock: Clock,
        fingerprint: str,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.accelerator, self.plan, self.dataset, self.out = accelerator, plan, dataset, out
        self.progress, self.clock, self.fingerprint = progress, clock, fingerprint
        config = plan.config
        if plan.batch % accelerator.num_processes:
            raise ConfigError(
                f"a batch of {plan.batch} for {accelerator.num_processes} processes",
                "equal parts for each",
                f"--batch {math.ceil(plan.batch / accelerator.num_processes) * accelerator.num_processes}",
            )
        if plan.batch == 1:
            progress.say("batch normalisation: kept as it is, since a batch is one crop (--batch)")
        clock.steps = plan.steps
        clock.seconds = config.minutes and config.minutes * 60
        self.class_weights = class_weights_for(dataset, config, progress)
        criterion = parse_loss(
            config.loss, ignore_index=dataset.classes.ignore_index, class_weights=self.class_weights
        )
        self.learner = Learner(accelerator, model, plan, criterion, progress)
        self.callbacks = (*callbacks, *trackers_of(accelerator, plan)) if accelerator.is_main_process else ()
        self.validation = Validation(accelerator, self.learner.average, dataset, plan.precision)
        self.sampler = CropSampler(
            dataset,
            dataset.split("train"),
            plan.augment,
            seed=config.seed,
            length=plan.epoch_steps * plan.batch,
            weigh=weighing(dataset, config),
            balance=config.balance,
            on_error=config.on_error,
            **keeping(dataset, config, out, progress),
        )
        self.checkpoints = Checkpoints(out / CHECKPOINTS)
        self.history = History(out)
        self.epoch, self.validated, self.ending, self.finished = 0, 0, False, False
        self.losses, self.loss_count = 0.0, 0
        self.best: ConfusionMatrix | None = None
        self.share = 0.0
        self.saved, self.saving = time.monotonic(), 0.0

    def fit(self) -> TrainResult:
        """Train to the end and return the best."""
        clock, config = self.clock, self.plan.config
        if not clock.reserved and clock.seconds:
            clock.reserved = 2 * self.validation.seconds()  # the last epoch's, and the best network's
        self.batches = self.open_batches()
        self.prepare_epoch()
        with self._stoppable(), self.batches:
            while not self.finished:
                self._agree_on_time()
                if not self.ending and (self.share < 1 or clock.step == 0):
                    rate = learning_rate(self.share, config.learning_rate, config.warmup)
                    self.step(next(self.batches), rate)
                else:
                    self._end_epoch()
                self._save_if_due()
        return self._result()

    def open_batches(self) -> Batches:
        """Return the batches from the step on where the run is."""
        return Batches(
            self.sampler,
            self.plan.batch,
            step=self.clock.step,
            workers=self.plan.workers,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Save what is whole when the run is stopped or fails, and say how to go on."""
        with Interruption() as self.interruption:
            try:
                yield
            except Stopped as stop:
                self.save()
                self._say_how_to_resume(f"{stop.name}: stopped")
                raise stop.exit from None
            except DataError:
                self.save()
                self._say_how_to_resume("stopped")
                raise
            except MachineError:
                self._say_how_to_resume("stopped")
                raise
            except RuntimeError as error:
                fault = self.batches.worker_fault(error)
                if fault is None and self.accelerator.num_processes > 1:
                    fault = MachineError(
                        f"process {self.accelerator.process_index} lost the others: {error}",
                        "all processes to the end",
                        "look for the first error among theirs; then resume",
                    )
                self._say_how_to_resume("stopped")
                raise fault or error from error

    def _agree_on_time(self) -> None:
        """Set how much of the run is over, and stop if asked to, in all processes alike."""
        self.share, came = self.clock.share, self.interruption.signal
        if self.accelerator.num_processes > 1:
            news = torch.tensor([self.share, float(came)], dtype=torch.float64)
            news = news.to(self.accelerator.device)
            torch.distributed.all_reduce(news, torch.distributed.ReduceOp.MAX)
            # A signal that came meanwhile is still noted, and told to the others at the next step.
            self.share, came = news[0].item(), int(news[1].item())
        if came:
            raise Stopped(came)

    def step(self, batch: Sequence[Tensor], rate: float) -> float:
        """Compute the gradient of a batch, take the step if it is a number, and return the loss."""
        started = time.perf_counter()
        step = self.clock.step
        batch = [part.to(self.accelerator.device, non_blocking=True) for part in batch]
        loss, norm = self.learner.gradient(batch, step)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise not_finite(
                batch,
                self.batches.names(step),
                loss=loss,
                norm=norm,
                rate=rate,
                bf16=self.plan.precision == "bf16",
                float32_loss=lambda: self.learner.float32_loss(batch),
                class_weights=self.class_weights,
                step=step + 1,
                file=self.out / f"bad-batch-{self.accelerator.process_index}.npz",
            )
        self.learner.update(rate)
        self.clock.step += 1
        self.ending = self.clock.step % self.plan.epoch_steps == 0
        self.losses, self.loss_count = self.losses + loss, self.loss_count + 1
        self.computed += time.perf_counter() - started
        self.computed_steps += 1
        for callback in self.callbacks:
            callback.on_step(self.clock.step, loss, rate)
        self.progress.advance("training", self.clock.share, 1.0, f"epoch {self.epoch + 1}, loss {loss:.3f}")
        return loss

    def _end_epoch(self) -> None:
        """Validate where it is due, keep the best, and begin the next epoch or end the run."""
        over, epoch = self.share >= 1, self.epoch + (self.loss_count > 0)
        due = over or epoch == 1 or epoch % self.plan.validate_every == 0
        if due and self.validated < self.clock.step:
            self._validate(epoch)
            over = agreed(over or self._is_patience_over(epoch))
        self.epoch, self.ending = epoch, False
        self.losses, self.loss_count = 0.0, 0
        self.prepare_epoch()
        if over and self.accelerator.is_main_process:
            self.validation.draw(self.out / "overlays" / "last")
        self.finished = over

    def prepare_epoch(self) -> None:
        """Train what this epoch trains."""
        network = self.learner.network.train()
        frozen = self.epoch < self.plan.config.frozen_epochs
        if getattr(network, "backbone", None) is not None:
            cast(FCN | UNet, network).freeze_backbone(frozen)
        elif frozen and self.epoch == 0:
            self.progress.say("no layers stay frozen: the network has no backbone (--frozen-epochs)")
        if self.plan.batch == 1:  # one crop has no batch statistics to speak of
            freeze_batch_norm(network)
        self.computed, self.computed_steps, self.batches_waited = 0.0, 0, self.batches.waited

    def _validate(self, epoch: int) -> None:
        """Score the averaged weights, and keep them if they are the best."""
        started = time.monotonic()
        # Alone, a process may stop at any image; with others it stops where all do.
        alone = self.accelerator.num_processes == 1
        matrix = self.validation.confusions(
            Checking(self.progress, self.interruption) if alone else self.progress
        )
        self.clock.reserved = 2 * (time.monotonic() - started)
        scores = matrix.scores()
        improved = self.best is None or not scores.mean_iu <= self.best.scores().mean_iu
        if self.accelerator.is_main_process:
            if epoch == 1:
                self.validation.draw(self.out / "overlays" / "epoch-1")
            if improved:
                self._keep(scores)
            self._record(epoch, matrix, improved)
        self.best = matrix if improved else self.best
        self.validated = self.clock.step

    def _is_patience_over(self, epoch: int) -> bool:
        """Whether the best epoch is so long ago that the run ends early."""
        patience = self.plan.config.patience
        if patience is None or not self.history.rows:
            return False
        best = max(self.history.rows, key=lambda row: row["mean_iu"] or 0.0)
        return epoch - int(best["epoch"]) >= patience

    def _keep(self, scores: Scores) -> None:
        values: dict[ScoreName, float] = {
            name: value for name in get_args(ScoreName) if math.isfinite(value := getattr(scores, name))
        }
        self.validation.model.provenance = Provenance(
            training_size=self.plan.augment.image_size,
            scores=values,
            data_fingerprint=self.fingerprint,
            seed=self.plan.config.seed,
            steps=self.clock.step,
        )
        save(self.validation.model, self.out / MODEL, overwrite=True)

    def _record(self, epoch: int, matrix: ConfusionMatrix, improved: bool) -> None:
        scores, constant = matrix.scores(), matrix.constant_predictor()
        seconds = time.monotonic() - self.clock.started
        loss = self.losses / max(self.loss_count, 1)
        waited = self.batches.waited - self.batches_waited
        crops = self.computed_steps * self.plan.batch
        row = {
            "epoch": epoch,
            "step": self.clock.step,
            "seconds": round(seconds, 1),
            "loss": loss,
            "crops_per_second": round(crops / max(self.computed + waited, 1e-9), 2),
            "compute_share": round(self.computed / max(self.computed + waited, 1e-9), 4),
            "skipped_images": len(self.sampler.skipped),
            **scores.to_dict(),
        }
        self.history.add(row)
        for callback in self.callbacks:
            callback.on_epoch(row)
        self.progress.say(
            f"epoch {epoch}: {seconds:.0f} s, loss {loss:.3f}, mean IU {scores.mean_iu:.4f} "
            f"(constant {constant.mean_iu:.4f}){', best so far, kept' if improved else ''}"
        )
        if self.sampler.skipped:
            self.progress.say(f"skipped, for they cannot be read: {', '.join(self.sampler.skipped)}")

    def _save_if_due(self) -> None:
        since = time.monotonic() - self.saved
        pause = self.saving / SAVE_SHARE
        at_epoch = self.loss_count == 0
        if self.finished or since > (pause if at_epoch else max(pause, SAVE_SECONDS)):
            self.save()

    def save(self) -> None:
        """Write a checkpoint; between steps, or it would hold half a step."""
        if not self.accelerator.is_main_process:
            return
        started = time.monotonic()
        state = State(
            step=self.clock.step,
            epoch=self.epoch,
            validated=self.validated,
            ending=self.ending,
            finished=self.finished,
            seconds=started - self.clock.started,
            reserved=self.clock.reserved,
            losses=self.losses,
            loss_count=self.loss_count,
            parts=self.learner.parts,
            averaged=int(self.learner.average.n_averaged),
            best=None if self.best is None else self.best.counts.tolist(),
            threads=torch.get_num_threads(),
            processes=self.accelerator.num_processes,
        )
        self.checkpoints.save(state, self.learner.tensors(), keep=1 if self.finished else KEPT)
        self.saved = time.monotonic()
        self.saving = self.saved - started

    def restore(self) -> None:
        """Go back to the last checkpoint that is whole, or to the start."""
        found = self.checkpoints.load(self.progress)
        if found is None:
            self.progress.say(f"no checkpoint in {self.out}: resuming at the start")
            self.history = History(self.out)
            return
        state, tensors = found
        self.learner.restore(tensors, state.averaged)
        self.clock.step, self.clock.reserved = state.step, state.reserved
        self.clock.started -= state.seconds
        self.epoch, self.validated = state.epoch, state.validated
        self.ending, self.finished = state.ending, state.finished
        self.losses, self.loss_count, self.learner.parts = state.losses, state.loss_count, state.parts
        if state.best is not None:
            self.best = ConfusionMatrix(len(self.dataset.classes))
            self.best.counts = np.array(state.best, np.int64)
        self.history = History(self.out, state.step)
        self.progress.say(
            f"resuming at step {state.step}, epoch {state.epoch + 1}, {state.seconds:.0f} s spent"
        )
        now = (torch.get_num_threads(), self.accelerator.num_processes)
        if now != (state.threads, state.processes):
            self.progress.say(
                f"{now[0]} threads in {now[1]} processes, before {state.threads} in {state.processes}: "
                "the weights may differ in their last bits from those of a run without a break"
            )

    def _say_how_to_resume(self, what: str) -> None:
        self.progress.say(
            f"{what} at step {self.clock.step}; go on: fullyconv train --resume {shlex.quote(str(self.out))}"
        )

    def _result(self) -> TrainResult:
        """Score the best network as its file has it."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        evaluation: Evaluation | None = None
        if self.accelerator.is_main_process:
            predictor = Predictor(load(self.out / MODEL), engine="torch", precision=self.plan.precision)
            evaluation = evaluate(predictor, self.dataset, split="val", progress=self.progress)
        shared = agreed(evaluation)
        assert shared is not None  # the first process's
        return TrainResult(
            self.out / MODEL,
            shared,
            self.epoch,
            self.clock.step,
            time.monotonic() - self.clock.started,
        )
