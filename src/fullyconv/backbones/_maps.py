"""Finding the maps of a trunk: which layers make them, of which stride and channels.

All runs here are on tensors without values, so they take no memory and change no weight.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Node

from fullyconv.errors import ConfigError, SurgeryError
from fullyconv.surgery.positions import ShapesAsTheyAre, shapes_only

Run = Callable[[Tensor], Sequence[Tensor]]
COARSEST = 32
# Two sizes apart by the largest stride in use: each map grows by 64 / stride, a pooled vector not at all.
_SIZES = (256, 320)


_Measured = TypeVar("_Measured")
_remembered: dict[tuple[object, ...], Any] = {}


def measured_once(key: tuple[object, ...] | None, measure: Callable[[], _Measured]) -> _Measured:
    """Return what ``measure`` finds; where ``key`` tells the network, it is found once per process."""
    if key is None:
        return measure()
    if key not in _remembered:
        _remembered[key] = measure()
    found: _Measured = _remembered[key]
    return found


class Found(NamedTuple):
    """One map: its channels, and image pixels per position."""

    channels: int
    stride: int


def read_maps(trunk: nn.Module, channels: int, run: Run | None = None) -> list[Found]:
    """Return channels and stride of every map that a trunk returns, or that ``run(image)`` does.

    Raises
    ------
    ConfigError
        The trunk does not run on images of 256 and 320 pixels, or something it returns is no map.
    """
    runs = [_shapes(trunk, channels, size, run) for size in _SIZES]
    maps = [_found(small, large) for small, large in zip(*runs, strict=True)]
    if any(found is None for found in maps):
        raise ConfigError(
            f"a backbone that returns values of shapes {', '.join(map(str, runs[0]))}",
            "maps N×C×H×W whose size grows with the image, by one whole stride",
            "return feature maps, or name the layers that make them",
        )
    return [found for found in maps if found]


def _found(small: Sequence[int], large: Sequence[int]) -> Found | None:
    if len(small) != 4 or small[1] != large[1]:
        return None
    grown = {more - less for less, more in zip(small[2:], large[2:], strict=True)}
    room = _SIZES[1] - _SIZES[0]
    if len(grown) != 1 or (steps := grown.pop()) < 1 or room % steps:
        return None
    return Found(small[1], room // steps)


def _shapes(trunk: nn.Module, channels: int, size: int, run: Run | None = None) -> list[tuple[int, ...]]:
    with without_values(trunk, channels, size) as image:
        try:
            found = (run or trunk)(image)
        except Exception as error:
            raise _does_not_run(trunk, channels, size, error) from error
        maps = list(found.values() if isinstance(found, Mapping) else found)
        return [tuple(each.shape) for each in maps]


def least_size(trunk: nn.Module, channels: int, stride: int) -> int:
    """Return the smallest multiple of ``stride`` at which no map is empty."""
    for size in range(stride, _SIZES[0], stride):
        try:
            if all(min(shape) > 0 for shape in _shapes(trunk, channels, size)):
                return size
        except ConfigError:
            continue
    return _SIZES[0]


def find_layers(module: nn.Module, channels: int) -> dict[str, Found]:
    """Return the layer that makes the last map at each stride up to 32, and its map, finest first."""
    runs: list[dict[str, tuple[int, ...]]] = []
    for size in _SIZES:
        made: dict[str, tuple[int, ...]] = {}

        def note(name: str, made: dict[str, tuple[int, ...]], *call: Any) -> None:
            if isinstance(call[-1], Tensor):
                made.pop(name, None)  # a layer that runs twice counts where it ran last
                made[name] = tuple(call[-1].shape)

        handles = [
            layer.register_forward_hook(partial(note, name, made))
            for name, layer in module.named_modules()
            if name
        ]
        try:
            with without_values(module, channels, size) as image:
                module(image)
        except Exception as error:
            raise _does_not_run(module, channels, size, error) from error
        finally:
            for handle in handles:
                handle.remove()
        runs.append(made)
    last: dict[int, tuple[str, Found]] = {}
    for name, shape in runs[0].items():
        found = _found(shape, runs[1].get(name, ()))
        if found and found.stride <= COARSEST:
            last[found.stride] = name, found
    return dict(last[stride] for stride in sorted(last))


def extract(module: nn.Module, layers: Collection[str]) -> nn.Module:
    """Return the part of a network that leads to the maps of ``layers``, under the names it has there.

    Raises
    ------
    ConfigError
        There is no such layer.
    SurgeryError
        The network cannot be traced.
    """
    known = dict(module.named_modules())
    missing = [name for name in layers if name not in known]
    if missing or not layers:
        raise ConfigError(
            f"layers {', '.join(map(repr, missing)) or 'none'} of {type(module).__name__}",
            f"names such as {', '.join(map(repr, [name for name in known if name][:8]))}",
            "see [name for name, _ in module.named_modules()]",
        )
    # Imported here: with it comes all of torch._dynamo, which networks of our own do without.
    from torchvision.models.feature_extraction import create_feature_extractor

    training = {part: part.training for part in module.modules()}
    try:
        trunk: nn.Module = create_feature_extractor(
            module,
            return_nodes={name: name for name in layers},
            tracer_kwargs={"leaf_modules": _kept_whole(known, layers)},
            suppress_diff_warning=True,
        )
    except Exception as error:
        raise SurgeryError(
            f"{type(module).__name__}, whose forward pass cannot be traced: {_first_line(error)}",
            "a forward pass that is the same list of layers for every image",
            "let it return its maps as a list, finest first, and give it attributes `channels` and `strides`",
        ) from error
    finally:
        for part, was in training.items():
            part.training = was
    _forget_the_tracer(trunk)
    return trunk


def _kept_whole(modules: Mapping[str, nn.Module], layers: Collection[str]) -> list[type[nn.Module]]:
    """Return the kinds of modules that hold no layer in question: looking into them takes long."""
    holders = {name for layer in layers for name in (*accumulate(layer.split("."), "{}.{}".format), "")}
    held = {type(module) for name, module in modules.items() if name in holders}
    return list(dict.fromkeys(type(module) for module in modules.values() if type(module) not in held))


def _forget_the_tracer(trunk: nn.Module) -> None:
    """Drop what tracing left on the graph's nodes: modules of the whole network, kept alive by it."""
    for graph in (getattr(trunk, "train_graph", None), getattr(trunk, "eval_graph", None)):
        nodes: Sequence[Node] = list(graph.nodes) if graph is not None else []
        for node in nodes:
            node.meta.clear()


@contextmanager
def without_values(module: nn.Module, channels: int, size: int) -> Iterator[Tensor]:
    """Yield an image without values, and let ``module`` run on it in evaluation mode."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    parameter = next(module.parameters(), torch.empty(0))
    # A run that fails is an answer here, told by an exception: torch's own log of it would only alarm.
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was, log.disabled = log.disabled, True
    try:
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            shapes_only(module),
            ShapesAsTheyAre(),
        ):
            warnings.simplefilter("ignore")
            yield torch.empty(1, channels, size, size, dtype=parameter.dtype, device=parameter.device)
    finally:
        log.disabled = was
        for part in training:
            part.training = True


def _does_not_run(module: nn.Module, channels: int, size: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"{type(module).__name__}, which fails on an image of {channels} channels and {size}×{size}: "
        f"{_first_line(error)}",
        "a convolutional network that runs on images of any size",
        "choose another backbone, or check channels=",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
