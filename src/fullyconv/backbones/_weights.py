"""Trained weights from a file into a trunk, and a first convolution for other channels."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fullyconv.errors import ConfigError, ModelFileError

_SHOWN = 4


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or a file of ``torch.save``, of which nothing is run.

    Raises
    ------
    ModelFileError
        There is no such file, or it holds no tensors by name.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{path}, which does not exist",
            "a file of weights: .safetensors, or .pth of torch.save",
            "check the path, or pass weights=None to start from scratch",
        ) from error
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelFileError(
            f"{path}, which cannot be read as weights: {reason}",
            "a safetensors file, or a state dict written by torch.save",
            "save the state dict of the network: torch.save(model.state_dict(), FILE)",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelFileError(
            f"{path}, which holds a {type(found).__name__}",
            "tensors by name",
            "save the state dict of the network: torch.save(model.state_dict(), FILE)",
        )
    return dict(found)


def load_trunk(
    trunk: nn.Module, tensors: Mapping[str, Tensor], *, whole: Collection[str], file: str | Path
) -> tuple[str, ...]:
    """Put weights into a trunk, every tensor of it, and return what to tell about it.

    Parameters
    ----------
    trunk
        What is to be filled.
    tensors
        By the names they have in ``trunk``.
    whole
        The names in the classifier that the trunk is cut from: those the trunk has not are its head, which
        is left out and told.
    file
        For messages.

    Raises
    ------
    ModelFileError
        Tensors are missing, have another shape, or belong to no such classifier; they are named.
    """
    own = trunk.state_dict()
    # Older files have no count of batches; it takes no part in anything here.
    counted = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in tensors and name not in counted]
    foreign = [name for name in tensors if name not in own and name not in whole]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    faults = {"without": missing, "with unknown": foreign, "with": misshaped}
    if any(faults.values()):
        found = "; ".join(f"{what} {_some(names)}" for what, names in faults.items() if names)
        raise ModelFileError(
            f"{file} {found}",
            f"the {len(own)} tensors of the trunk",
            "choose the backbone that the file was made for, or pass weights=None",
        )
    trunk.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)
    head = [name for name in tensors if name not in own]
    return (f"left out of {Path(file).name}: {_some(head)}, the classifier's head",) if head else ()


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def adapt_channels(trunk: nn.Module, channels: int) -> None:
    """Give the first convolution, which takes RGB, another number of channels, in place.

    For one channel the three kernels are added, so that a gray image gives what it gave as RGB of equal
    channels. For more, they are repeated in turn and scaled by 3/C, so that equal channels give the same.

    Raises
    ------
    ConfigError
        No convolution takes three channels.
    """
    first = next((layer for layer in trunk.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise ConfigError(
            f"{channels} channels for a network whose first convolution takes "
            f"{first.in_channels if first else 'nothing'}",
            "a network of RGB images",
            "build the network for these channels yourself and pass the module",
        )
    with torch.no_grad():
        kernels = first.weight.detach()
        adapted = (
            kernels.sum(1, keepdim=True)
            if channels == 1
            else kernels[:, [index % 3 for index in range(channels)]] * (3 / channels)
        )
    first.in_channels = channels
    first.weight = nn.Parameter(adapted.contiguous())
