"""The options of a U-Net, which its model file holds."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from fullyconv.backbones import Backbone, is_backbone_name
from fullyconv.errors import ConfigError
from fullyconv.models._layers import Norm, Padding
from fullyconv.models.segmentation import Architecture
from fullyconv.upsampling import UPSAMPLERS

UP_CONVOLUTION = "up_convolution"


def _known_upsampling(name: str) -> str:
    names = (UP_CONVOLUTION, *UPSAMPLERS)
    if name not in names:
        raise ValueError(f"one of {', '.join(names)}")
    return name


def _known_encoder(name: str) -> str:
    if not is_backbone_name(name):
        raise ValueError("'torchvision:NAME' or 'timm:NAME' of a network there")
    return name


class _Options(Architecture):
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(min_length=2, max_length=9)]
    padding: Padding
    norm: Norm | None
    dropout: Annotated[float, Field(ge=0, lt=1)]
    upsampling: Annotated[str, AfterValidator(_known_upsampling)]
    deep_supervision: bool


class UNetArchitecture(_Options):
    """The options of a `UNet` with its own encoder; `UNet` describes them."""

    kind: Literal["unet"] = "unet"


class BackboneUNetArchitecture(_Options):
    """The options of a `UNet` on a backbone; `UNet` describes them."""

    kind: Literal["backbone_unet"] = "backbone_unet"
    encoder: Annotated[str, AfterValidator(_known_encoder)]
    freeze_batch_norm: bool

    @property
    def classifier(self) -> tuple[str, str]:
        """``"LIBRARY:NAME"`` of the classifier inside, and what its tensors' names begin with."""
        return self.encoder, "encoder.backbone.trunk."


_Kind = TypeVar("_Kind", bound=_Options)


def checked(architecture: type[_Kind], **options: object) -> _Kind:
    """Return the options.

    Raises
    ------
    ConfigError
        The first that is out of range.
    """
    try:
        return architecture.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0])
        raise ConfigError(
            f"UNet option {option}={options[option]!r}", first["msg"], "see help(fullyconv.models.UNet)"
        ) from None


def checked_on_backbone(
    backbone: Backbone, *, freeze_batch_norm: bool, **options: object
) -> BackboneUNetArchitecture:
    """Return the options of a network on this backbone; see `checked`."""
    common = checked(_Options, kind="backbone_unet", **options)
    # A network of one's own can be trained, but no file can rebuild it: `save` refuses this name.
    name = backbone.name or type(backbone.trunk).__name__
    return BackboneUNetArchitecture.model_construct(
        **dict(common), encoder=name, freeze_batch_norm=freeze_batch_norm
    )
