"""Backbones: trunks of classifiers that give their features at each stride.

A backbone is a network N×C×H×W → list of maps N×Cᵢ×Hᵢ×Wᵢ, finest first. It comes from torchvision, from timm,
or from a network of your own, and may keep the classifier's fully connected layers as convolutions.
"""

from fullyconv.backbones._backbone import Backbone
from fullyconv.backbones._build import SOURCES, build_backbone, is_backbone_name, torchvision_network

__all__ = ["SOURCES", "Backbone", "build_backbone", "is_backbone_name", "torchvision_network"]
