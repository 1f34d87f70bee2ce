"""A classifier's fully connected layers as the last convolutions of its trunk (arXiv 1411.4038, 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

from torch import Tensor, nn

from fullyconv.errors import SurgeryError
from fullyconv.surgery import linear_to_conv

PUBLISHED_PADDING = 100
_FIRST = 6  # VGG and AlexNet have five blocks of convolutions before


def poolings(classifier: nn.Module) -> list[str]:
    """Return the dotted names of the max poolings of ``classifier.features``, from fine to coarse."""
    layers = classifier.get_submodule("features").named_children()
    return [f"features.{name}" for name, layer in layers if isinstance(layer, nn.MaxPool2d)]


def with_fully_connected(classifier: nn.Module, *, published: bool) -> nn.Sequential:
    """Return a classifier's trunk with its fully connected layers, but the last, as convolutions.

    Parameters
    ----------
    classifier
        With lists of layers ``features`` and ``classifier``, as VGG and AlexNet have. The result shares its
        layers and weights, and ``published`` changes the layers.
    published
        As the published networks have it: the first convolution padded by 100 and those of the fully
        connected layers not at all, poolings that round up. Otherwise these convolutions keep the map's
        size.

    Returns
    -------
    nn.Sequential
        ``features`` and then ``conv6``, ``relu6``, ``drop6``, ``conv7`` and so on.

    Raises
    ------
    SurgeryError
        The classifier is not of that form.
    """
    features, head = getattr(classifier, "features", None), getattr(classifier, "classifier", None)
    if not isinstance(features, nn.Sequential) or not isinstance(head, nn.Sequential):
        raise _no_fully_connected(classifier)
    linears = [layer for layer in head if isinstance(layer, nn.Linear)]
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    plain = (nn.Linear, nn.ReLU, nn.Dropout, nn.Flatten, nn.Identity)
    if len(linears) < 2 or not convolutions or not all(isinstance(layer, plain) for layer in head):
        raise _no_fully_connected(classifier)
    share = max((layer.p for layer in head if isinstance(layer, nn.Dropout)), default=0.0)
    side = isqrt(linears[0].in_features // convolutions[-1].out_channels)
    trunk = nn.Sequential()
    trunk.add_module("features", features)
    for number, linear in enumerate(linears[:-1], _FIRST):
        convolution = linear_to_conv(linear, (side, side) if number == _FIRST else (1, 1))
        if not published:
            convolution.padding = "same"
        trunk.add_module(f"conv{number}", convolution)
        trunk.add_module(f"relu{number}", nn.ReLU(inplace=True))
        trunk.add_module(f"drop{number}", nn.Dropout(share))
    if published:
        convolutions[0].padding = (PUBLISHED_PADDING, PUBLISHED_PADDING)
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
    return trunk


def last_layer(trunk: nn.Module) -> str:
    """Return the name of the last of a list of layers."""
    return list(dict(trunk.named_children()))[-1]


def renamed(tensors: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Return a classifier's tensors under the names and with the shapes they have in its ``trunk``."""
    own = trunk.state_dict()
    numbers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("classifier.")})
    names = {f"classifier.{number}": f"conv{_FIRST + place}" for place, number in enumerate(numbers)}
    found = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        new = f"{names.get(layer, layer)}.{kind}"
        known = own.get(new) if layer in names else None
        found[new if known is not None else name] = (
            tensor.reshape(known.shape) if known is not None and tensor.numel() == known.numel() else tensor
        )
    return found


def _no_fully_connected(classifier: nn.Module) -> SurgeryError:
    return SurgeryError(
        f"{type(classifier).__name__}, without fully connected layers to keep",
        "lists of layers `features` and `classifier`, the latter of two or more nn.Linear, ReLU and Dropout",
        "use vgg16 or alexnet, or leave fully_connected=True out",
    )
