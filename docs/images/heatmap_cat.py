"""Draw heatmap-cat.png: python docs/images/heatmap_cat.py WEIGHTS, a file for torchvision's squeezenet1_1.

The photograph is scikit-image's cat (CC0, by its author).
"""

import sys
from pathlib import Path

import skimage.data

import fullyconv as fc
from fullyconv.explanation import heatmap_figure

classifier = fc.load_classifier("squeezenet1_1", weights=sys.argv[1])
result = fc.heatmaps(
    classifier, skimage.data.cat(), classes=["Egyptian cat", "tabby", "tiger cat", "lynx", "golden retriever"]
)
print(result)
heatmap_figure(result).savefig(Path(__file__).with_name("heatmap-cat.png"), dpi=65)
