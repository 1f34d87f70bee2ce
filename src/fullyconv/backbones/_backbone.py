"""What every backbone is to the outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fullyconv.backbones._maps import Found, least_size, measured_once, read_maps
from fullyconv.errors import ConfigError

_Measured = TypeVar("_Measured")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class Backbone(nn.Module):
    """A trunk that gives its features at each stride: N×C×H×W → list of N×Cᵢ×Hᵢ×Wᵢ, finest first.

    Height and width are multiples of the coarsest stride, from `least_size` up; many trunks take others too.

    Parameters
    ----------
    trunk
        A network that returns its maps, finest first, as a list, tuple or dict.
    image_channels
        C.
    normalization
        (mean, std) that the trunk's images were normalised with, one number per channel of uint8 images (0
        to 255); None where nobody knows.
    name
        ``"torchvision:NAME"`` or ``"timm:NAME"`` where that rebuilds it, else None.
    fully_connected
        Whether the coarsest map is that of a classifier's fully connected layers.
    published
        Whether layers are padded as in the published networks.
    notes
        What was done to weights, one line each.
    maps
        Channels and stride of each map where they were measured before; else they are measured here.

    Attributes
    ----------
    channels, strides : tuple of int
        Of each map, measured on tensors without values.
    least_size : int
        The smallest image, in pixels, that gives no empty map; a multiple of the coarsest stride.

    Raises
    ------
    ConfigError
        What the trunk returns are no maps of strictly growing stride.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        image_channels: int = 3,
        normalization: Statistics | None = None,
        name: str | None = None,
        fully_connected: bool = False,
        published: bool = False,
        notes: tuple[str, ...] = (),
        maps: Sequence[Found] = (),
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.image_channels, self.normalization = image_channels, normalization
        self.name, self.notes = name, notes
        self.fully_connected, self.published = fully_connected, published
        maps = maps or self.measured_once("maps", lambda: read_maps(self, image_channels))
        self.channels = tuple(found.channels for found in maps)
        self.strides = tuple(found.stride for found in maps)
        if not maps or list(self.strides) != sorted(set(self.strides)):
            raise ConfigError(
                f"a backbone with maps of strides {', '.join(map(str, self.strides)) or 'none'}",
                "maps N×C×H×W, each coarser than the one before",
                "return the maps from fine to coarse, one for each stride, or name the layers",
            )
        self.least_size = self.measured_once(
            "least size", lambda: least_size(self, image_channels, self.strides[-1])
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of normalised images, finest first."""
        found = self.trunk(images)
        return list(found.values() if isinstance(found, Mapping) else found)

    def missing(self, length: int) -> int:
        """Return how many pixels an image's height or width wants, so that every map is whole and none empty.

        Up to a whole multiple of the coarsest stride, and by as much more as one pixel would need: the same
        for all sizes of one remainder, so any tile is like any image, and exports keep sizes free.
        """
        coarsest = self.strides[-1]
        # Not -length % coarsest: exported programs divide towards zero, and reckon fast with whole multiples.
        whole = (length + coarsest - 1) // coarsest * coarsest
        return whole - length + self.least_size - coarsest

    def measured_once(self, what: str, measure: Callable[[], _Measured]) -> _Measured:
        """Return what ``measure`` finds; where the name tells the network, it is found once per process."""
        key = (what, self.name, self.image_channels, self.fully_connected, self.published)
        return measured_once(key if self.name else None, measure)

    def freeze_batch_norm(self) -> None:
        """Put batch normalisation into evaluation mode: kept statistics are used, and do not change."""
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def extra_repr(self) -> str:
        """Show channels and strides in the printed network."""
        return f"{self.name or 'own'}, channels={self.channels}, strides={self.strides}"


class TimmBackbone(Backbone):
    """A network of timm, asked for its intermediate maps by number."""

    def __init__(self, trunk: nn.Module, indices: Sequence[int], **options: Any) -> None:
        # A plain list before nn.Module is set up: it is no module, and the measuring run needs it.
        self.__dict__["indices"] = list(indices)
        super().__init__(trunk, **options)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of normalised images, finest first."""
        found: list[Tensor] = self.trunk.forward_intermediates(  # type: ignore[operator]  # timm's modules declare no such method
            images, indices=self.indices, intermediates_only=True, stop_early=True
        )
        return found
