"""Backbones by name, from a file of weights, and from networks of one's own."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fullyconv.backbones._backbone import Backbone, Statistics, TimmBackbone
from fullyconv.backbones._fully_connected import last_layer, poolings, renamed, with_fully_connected
from fullyconv.backbones._maps import COARSEST, Found, extract, find_layers, measured_once, read_maps
from fullyconv.backbones._weights import adapt_channels, load_trunk, read_weights
from fullyconv.errors import ConfigError, MachineError

Weights = str | Path | None
IMAGENET = "imagenet"
_SPREAD = 255.0
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_backbone(
    source: str | nn.Module,
    *,
    channels: int = 3,
    weights: Weights = None,
    layers: Sequence[str] | None = None,
    fully_connected: bool = False,
    published: bool = False,
) -> Backbone:
    """Build a backbone.

    Parameters
    ----------
    source
        A name of torchvision or timm (torchvision's where both have it; ``"timm:resnet18"`` chooses), or a
        network of your own: one that returns its maps, or any classifier, whose ``layers`` are taken, by
        default those that make the last map at each stride up to 32. Of VGG and AlexNet the maps after
        poolings are taken, as in the paper.
    channels
        Of the images. Where they are not 3, the first convolution of a named network is adapted: for one
        channel its kernels are added, for others repeated in turn and scaled by 3/C.
    weights
        None for random start values; "imagenet" for the library's own, downloaded if they are not there; or
        a file: safetensors or a state dict of ``torch.save``, with the names the library gives. A
        classifier's head in it is left out, and `Backbone.notes` says so.
    layers
        Names of layers of a network of your own or of torchvision, instead of those found.
    fully_connected
        Keep the fully connected layers of a classifier such as VGG16 or AlexNet, all but the last, as
        convolutions conv6 and conv7 at the end.
    published
        With ``fully_connected``: padding of the published networks (see `fullyconv.FCN`).

    Raises
    ------
    ConfigError
        No such network, or it gives no maps.
    ModelFileError
        The file of weights cannot be read, or is not of this network.
    MachineError
        ImageNet weights cannot be fetched; the message says which file to place where.
    SurgeryError
        A network of your own cannot be traced, or has no fully connected layers to keep.

    Examples
    --------
    >>> backbone = build_backbone("squeezenet1_1")
    >>> backbone.strides, backbone.channels
    ((2, 4, 8, 16), (64, 128, 256, 512))
    """
    if channels < 1:
        raise ConfigError(f"{channels} channels", "1 or more", "count the channels of your images")
    if published and not fully_connected:
        raise ConfigError(
            "the published padding without fully connected layers",
            "both, as the published networks have them",
            "pass fully_connected=True, or alignment='same'",
        )
    if isinstance(source, str):
        library, name = _resolved(source)
        return SOURCES[library][1](name, channels, weights, layers, fully_connected, published)
    if isinstance(source, Backbone):
        return source
    return _own(source, channels, weights, layers, fully_connected, published)


class _CountsHaveValues(TorchFunctionMode):
    """Gives counts memory where tensors have none: RegNets compute their widths with them."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place = {"device": "cpu"} if function in (torch.arange, torch.tensor) else {}
        return function(*args, **place | (kwargs or {}))


def torchvision_network(name: str, **options: Any) -> nn.Module:
    """Return an untrained network of torchvision, under ``torch.device("meta")`` too.

    Parameters
    ----------
    name
        As in ``torchvision.models.list_models()``.
    **options
        As that network takes them.
    """
    import torchvision

    with _CountsHaveValues(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return network


def is_backbone_name(name: str) -> bool:
    """Say whether ``name`` is ``"LIBRARY:NETWORK"`` with both known."""
    library, _, network = name.partition(":")
    return library in SOURCES and network in SOURCES[library][0]()


def _resolved(name: str) -> tuple[str, str]:
    candidates = [name] if ":" in name else [f"{library}:{name}" for library in SOURCES]
    for candidate in candidates:
        if is_backbone_name(candidate):
            library, _, network = candidate.partition(":")
            return library, network
    every = sorted({network for names, _ in SOURCES.values() for network in names()})
    near = get_close_matches(name.partition(":")[2] or name, every, 5, 0.5)
    raise ConfigError(
        f"backbone {name!r}",
        "a network of torchvision or timm, by its name there"
        + (f", such as {', '.join(near)}" if near else ""),
        "see timm.list_models() and torchvision.models.list_models(), or pass a network of your own",
    )


def _own(
    module: nn.Module,
    channels: int,
    weights: Weights,
    layers: Sequence[str] | None,
    fully_connected: bool,
    published: bool,
) -> Backbone:
    if weights == IMAGENET:
        raise ConfigError(
            f"ImageNet weights for {type(module).__name__}",
            "a network of torchvision or timm by its name",
            "load the weights into your network before, or pass weights=FILE",
        )
    notes: tuple[str, ...] = ()
    if weights is not None:
        notes = load_trunk(module, read_weights(weights), whole=(), file=weights)
    if fully_connected:
        module = copy.deepcopy(module)  # its layers are changed
        taps = poolings(module) if hasattr(module, "features") else []
        trunk = with_fully_connected(module, published=published)
        module, layers = trunk, layers or [*taps[:-1], last_layer(trunk)]
    gives_maps = hasattr(module, "channels") and hasattr(module, "strides")
    if layers is not None or not gives_maps:
        module = extract(module, layers or find_layers(module, channels))
    return Backbone(
        module,
        image_channels=channels,
        fully_connected=fully_connected,
        published=published,
        notes=notes,
    )


def _torchvision(
    name: str,
    channels: int,
    weights: Weights,
    layers: Sequence[str] | None,
    fully_connected: bool,
    published: bool,
) -> Backbone:
    # Heads of these take more memory than all else: they are cut off before there is any.
    pooled = name.startswith(("vgg", "alexnet"))
    with torch.device("meta") if pooled else nullcontext():
        whole = torchvision_network(name)
    trunk: nn.Module = whole
    if fully_connected:
        trunk = with_fully_connected(whole, published=published)
    elif isinstance(features := getattr(whole, "features", None), nn.Module):
        # By itself, so that nothing of the head is taken for a map.
        trunk = nn.Sequential()
        trunk.add_module("features", features)
    rebuilds = layers is None
    if layers is None and pooled:
        found = poolings(whole)
        layers = [*found[:-1], last_layer(trunk)] if fully_connected else found
    maps: dict[str, Found] = {}
    if layers is None:
        maps = measured_once(("layers", name), lambda: find_layers(trunk, 3))
    extracted = extract(trunk, layers or maps)
    if pooled:
        _start(extracted)
    notes: tuple[str, ...] = ()
    if weights is not None:
        file = _torchvision_file(name) if weights == IMAGENET else weights
        tensors = read_weights(file)
        if fully_connected:
            tensors = renamed(tensors, extracted)
        notes = load_trunk(extracted, tensors, whole=whole.state_dict().keys(), file=file)
    return _named(
        Backbone,
        extracted,
        channels,
        (_IMAGENET_MEAN, _IMAGENET_STD),
        name=f"torchvision:{name}" if rebuilds else None,
        fully_connected=fully_connected,
        published=published,
        notes=notes,
        maps=tuple(maps.values()),
    )


def _timm(
    name: str,
    channels: int,
    weights: Weights,
    layers: Sequence[str] | None,
    fully_connected: bool,
    published: bool,
) -> Backbone:
    import timm

    if fully_connected or layers is not None:
        raise ConfigError(
            f"{'fully connected layers' if fully_connected else 'layers'} of timm's {name}",
            "a network of torchvision, or one of your own",
            f"use 'torchvision:{name}' or pass timm.create_model({name!r})",
        )
    trunk = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    if not hasattr(trunk, "forward_intermediates"):
        raise ConfigError(
            f"timm's {name}, which gives no maps of its layers",
            "a network with forward_intermediates",
            "choose another, or pass timm.create_model(NAME) as a network of your own",
        )
    every = partial(trunk.forward_intermediates, intermediates_only=True)
    maps = measured_once(("intermediates", name), lambda: read_maps(trunk, 3, every))
    last = {found.stride: index for index, found in enumerate(maps) if found.stride <= COARSEST}
    indices = [last[stride] for stride in sorted(last)]
    trunk.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)
    notes: tuple[str, ...] = ()
    if weights is not None:
        file = _timm_file(name) if weights == IMAGENET else weights
        with torch.device("meta"):
            whole = timm.create_model(name, pretrained=False).state_dict().keys()
        notes = load_trunk(trunk, read_weights(file), whole=whole, file=file)
    known = trunk.pretrained_cfg
    return _named(
        partial(TimmBackbone, indices=indices),
        trunk,
        channels,
        (known.get("mean", _IMAGENET_MEAN), known.get("std", _IMAGENET_STD)),
        name=f"timm:{name}",
        notes=notes,
        maps=[maps[index] for index in indices],
    )


def _named(
    make: Callable[..., Backbone], trunk: nn.Module, channels: int, statistics: Statistics, **options: Any
) -> Backbone:
    if channels != 3:
        adapt_channels(trunk, channels)
    mean, std = (
        tuple(_SPREAD * (sum(part) / 3 if channels == 1 else part[index % 3]) for index in range(channels))
        for part in statistics
    )
    return make(trunk, image_channels=channels, normalization=(mean, std), **options)


def _start(trunk: nn.Module) -> None:
    """Give memory to a trunk that has none, and the start values of torchvision's VGG."""
    trunk.to_empty(device=torch.get_default_device())
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


def _torchvision_file(name: str) -> Path:
    from torchvision.models import get_model_weights

    url: str = get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.exists():
        digest = re.search(r"-([0-9a-f]{8,})\.", file.name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), digest and digest[1], progress=False)
        except (OSError, RuntimeError) as error:
            raise _not_fetched(f"torchvision's {name}", error, url, f"place it as {file}") from error
    return file


def _timm_file(name: str) -> Path:
    import timm
    from huggingface_hub import hf_hub_download

    known = timm.get_pretrained_cfg(name)
    if known is None or not known.hf_hub_id:
        raise ConfigError(
            f"ImageNet weights of timm's {name}", "a network that has some", "see timm.list_pretrained()"
        )
    url = f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors"
    try:
        return Path(hf_hub_download(known.hf_hub_id, "model.safetensors"))
    except Exception as error:  # its errors have no common ancestor
        raise _not_fetched(f"timm's {name}", error, url, "keep it anywhere") from error


def _not_fetched(what: str, error: Exception, url: str, place: str) -> MachineError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return MachineError(
        f"ImageNet weights of {what}, which cannot be fetched: {reason}",
        f"a connection to {url}, or that file",
        f"fetch it elsewhere and {place}, or pass weights=FILE",
    )


@cache
def _torchvision_names() -> frozenset[str]:
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


@cache
def _timm_names() -> frozenset[str]:
    import timm

    return frozenset(timm.list_models())


# Library -> (names of its networks, what builds one); the first that has a name is taken.
SOURCES: dict[str, tuple[Callable[[], frozenset[str]], Callable[..., Backbone]]] = {
    "torchvision": (_torchvision_names, _torchvision),
    "timm": (_timm_names, _timm),
}
