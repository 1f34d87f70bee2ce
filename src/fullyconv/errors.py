"""Every exception this library raises on purpose.

Each says three things: what was given, what was expected, and what to do next.
The command line turns the branch into its exit code::

    FullyconvError
    ├── InputError          exit 2: something about the user's input
    │   ├── ImageError          an image file or array
    │   ├── DataError           a folder of images and masks; carries every problem found
    │   ├── ModelFileError      a model file
    │   ├── ConfigError         an option or a value in a configuration
    │   ├── GeometryError       sizes or coordinates that do not fit
    │   └── SurgeryError        a classifier that has no dense form
    └── MachineError        exit 3: this machine (disk, memory, a missing optional part)
"""

from __future__ import annotations


class FullyconvError(Exception):
    """The root of the tree: ``given``, ``expected`` and ``fix`` make the message.

    Parameters
    ----------
    given
        What was found, with the file, pixel, layer or value.
    expected
        What would have been right.
    fix
        What to do next; a command that can be pasted where there is one.
    """

    exit_code = 1

    def __init__(self, given: str, expected: str, fix: str) -> None:
        super().__init__(given, expected, fix)
        self.given = given
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.given}; expected {self.expected}. To fix: {self.fix}"


class InputError(FullyconvError):
    """Something about the user's input."""

    exit_code = 2


class ImageError(InputError):
    """An image file or array cannot be used."""


class DataError(InputError):
    """A folder of images and masks cannot be used; ``problems`` holds one line each."""

    def __init__(self, given: str, expected: str, fix: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(given, expected, fix)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])


class ModelFileError(InputError):
    """A model file is not one, is damaged, or asks for what this version does not know."""


class ConfigError(InputError):
    """An option or a configuration value is out of range or contradicts another."""


class GeometryError(InputError):
    """Sizes or coordinates do not fit: a fractional crop, an input too small."""


class SurgeryError(InputError):
    """A classifier has no dense form, or two networks do not correspond; the layer is named."""


class MachineError(FullyconvError):
    """The machine is short of something: disk, memory, or an optional part."""

    exit_code = 3
