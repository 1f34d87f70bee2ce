"""What a step changes, how fast, and the running average of it that is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fullyconv.training.config import TrainConfig


def mean_loss(criterion: nn.Module, scores: Tensor | Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Return the loss by labels, and weights if any, as a mean over the network's outputs."""
    every = [scores] if isinstance(scores, Tensor) else scores
    losses: list[Tensor] = [criterion(each.float(), *truth) for each in every]
    return torch.stack(losses).mean()


# Adam moves every weight by about the rate, so a score of C channels moves by about C times that: one of 16
# channels would need thousands of steps to become certain. Fewer channels than these get a higher rate.
CHANNELS_AT_RATE = 160


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Decay weights only (biases and normalisation scales are vectors); give parts their own rates.

    These are the backbone, and a U-Net's score layers: the fewer channels they read, the faster they learn.
    """
    shares = _shares(model, config)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault((shares.get(parameter, 1.0), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": config.weight_decay if decays else 0.0, "share": share}
        for (share, decays), parameters in groups.items()
    ]


def _shares(model: nn.Module, config: TrainConfig) -> dict[nn.Parameter, float]:
    backbone = getattr(model, "backbone", None)
    shares = dict.fromkeys(backbone.parameters(), config.backbone_rate) if backbone is not None else {}
    for layer in (getattr(model, "head", None), *getattr(model, "auxiliary_heads", ())):
        if isinstance(layer, nn.Conv2d):
            share = max(1.0, CHANNELS_AT_RATE / layer.in_channels)
            shares |= dict.fromkeys(layer.parameters(), share)
    return shares


def freeze_batch_norm(model: nn.Module) -> None:
    """Keep the statistics of batch normalisation as they are, until the next ``train()``."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


def running_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the update of a running average that forgets fast at first, so that no start lingers."""

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        now = min(decay, (1 + count.item()) / (10 + count.item()))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - now)
            else:
                old.copy_(new)

    return update


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state by the position of each parameter and the name of each value."""
    return {
        f"{position}.{name}": value
        for position, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer the state that `optimizer_tensors` returned, laid out in memory as it was."""
    parameters = _parameters(optimizer)
    for key, saved in tensors.items():
        position, _, name = key.partition(".")
        parameter = parameters[int(position)]
        value = torch.empty_like(parameter) if saved.shape == parameter.shape and saved.ndim else saved
        optimizer.state[parameter][name] = value.detach().copy_(saved)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
