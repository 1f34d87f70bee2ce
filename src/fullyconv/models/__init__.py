"""Networks from raw pixels to scores, and the file they live in."""

from fullyconv.models.averaged import FLIPS, Averaged, AveragedArchitecture, Flips, Network, assemble
from fullyconv.models.dense import DenseArchitecture, DensePredictor
from fullyconv.models.fcn import FCN, FCNArchitecture, upgrade
from fullyconv.models.file import KINDS, ModelHeader, load, locate, model_files, read_header, save
from fullyconv.models.segmentation import Architecture, Normalization, Provenance, SegmentationModel
from fullyconv.models.unet import BackboneUNetArchitecture, UNet, UNetArchitecture

__all__ = [
    "FCN",
    "FLIPS",
    "KINDS",
    "Architecture",
    "Averaged",
    "AveragedArchitecture",
    "BackboneUNetArchitecture",
    "DenseArchitecture",
    "DensePredictor",
    "FCNArchitecture",
    "Flips",
    "ModelHeader",
    "Network",
    "Normalization",
    "Provenance",
    "SegmentationModel",
    "UNet",
    "UNetArchitecture",
    "assemble",
    "load",
    "locate",
    "model_files",
    "read_header",
    "save",
    "upgrade",
]
