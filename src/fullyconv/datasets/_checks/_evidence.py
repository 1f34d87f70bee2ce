"""What was understood of a dataset, before it is judged."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from fullyconv.datasets._checks._facts import Facts, ImageFacts
from fullyconv.datasets._checks._kept import facts_of
from fullyconv.datasets._encodings import Encoding, detect_encoding
from fullyconv.datasets._layouts import Layout
from fullyconv.datasets._samples import Sample, counted
from fullyconv.datasets._sources import Source, load_mask, name_below
from fullyconv.errors import DataError
from fullyconv.progress import Progress


@dataclass(frozen=True)
class Evidence:
    """Everything the checks may look at.

    Parameters
    ----------
    root, layout
        The folder, and what it was understood to be.
    facts
        One for each of the layout's samples.
    encoding
        How masks spell labels; None where that is not to be understood.
    refused
        Why it is not.
    """

    root: Path
    layout: Layout
    facts: tuple[Facts, ...]
    encoding: Encoding | None
    refused: DataError | None

    def __iter__(self) -> Iterator[tuple[Sample, Facts]]:
        return zip(self.layout.samples, self.facts, strict=True)

    def name(self, source: Source) -> str:
        """Return how messages name a file."""
        return name_below(self.root, source)

    def mask_name(self, sample: Sample) -> str:
        """Return how messages name a sample's mask; that of its image where it has none."""
        return self.name(sample.mask if sample.mask is not None else sample.image)

    @property
    def fix_command(self) -> str:
        """The command that writes a corrected copy, to be pasted."""
        return shlex.join(["fullyconv", "check", str(self.root), "--fix", f"{self.root}-fixed"])

    @property
    def images(self) -> list[tuple[Sample, ImageFacts]]:
        """The images that could be read."""
        return [(sample, facts.image) for sample, facts in self if facts.image is not None]

    @cached_property
    def channels(self) -> int:
        """The channels every image is used with: gray beside RGB becomes RGB, an opaque alpha is dropped."""
        colors = Counter(image.colors for _, image in self.images)
        if set(colors) <= {1, 3}:
            return max(colors, default=0)
        return Counter(image.channels for _, image in self.images).most_common(1)[0][0]

    @cached_property
    def dtype(self) -> str:
        """The dtype of most images."""
        types = Counter(image.dtype for _, image in self.images)
        return types.most_common(1)[0][0] if types else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was understood beyond the layout, one line each."""
        found = list(self.layout.notes)
        stored = Counter(image.channels for _, image in self.images)
        if {image.colors for _, image in self.images} <= {1, 3}:
            found += [
                f"images: {number} of {len(self.images)} with {counted(have, 'channel')}, "
                f"used with {self.channels}"
                for have, number in sorted(stored.items())
                if have != self.channels
            ]
        if self.encoding is not None:
            found += self.encoding.notes
            share = sum(self.ignored.values()) / max(self.mask_pixels, 1)
            if share:
                found.append(f"masks: {share:.1%} of all pixels are ignored")
        return tuple(found)

    @property
    def mask_pixels(self) -> int:
        """Number of pixels of all masks."""
        return sum(facts.mask.size[0] * facts.mask.size[1] for facts in self.facts if facts.mask)

    @cached_property
    def ignored(self) -> Mapping[int, int]:
        """Number of ignored pixels of all masks, by code."""
        counts: Counter[int] = Counter()
        for facts in self.facts:
            if self.encoding is not None and facts.mask is not None:
                for code, number in self.encoding.pixels(facts.mask.census("")).items():
                    if self.encoding.labels.get(code) == self.encoding.classes.ignore_index:
                        counts[code] += number
        return counts

    @cached_property
    def pixels(self) -> Mapping[str, tuple[int, ...]]:
        """Pixels of each class in each sample's mask, by name; ignored and unknown ones left out."""
        encoding = self.encoding
        if encoding is None:
            return {}
        counted = {}
        for sample, facts in self:
            counts = [0] * len(encoding.classes)
            if facts.mask is not None:
                for code, number in encoding.pixels(facts.mask.census("")).items():
                    label = encoding.labels.get(code, -1)
                    if 0 <= label < len(counts):
                        counts[label] += number
            counted[sample.name] = tuple(counts)
        return counted


def gather(root: Path, layout: Layout, progress: Progress) -> Evidence:
    """Decode what was not decoded before, and find out what the masks mean."""
    facts = facts_of(layout.samples, progress)
    evidence = Evidence(root, layout, tuple(facts), None, None)
    censuses = [
        each.mask.census(evidence.mask_name(sample), partial(load_mask, sample.mask))
        for sample, each in evidence
        if each.mask and sample.mask
    ]
    if not censuses:
        return evidence
    try:
        encoding = detect_encoding(censuses, layout.classes)
    except DataError as error:
        return Evidence(root, layout, tuple(facts), None, error)
    return Evidence(root, layout, tuple(facts), encoding, None)
