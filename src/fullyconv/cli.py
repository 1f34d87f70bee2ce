"""The command line, derived from `commands`: a verb's signature and docstring are its help."""

from __future__ import annotations

import atexit
import functools
import gc
import inspect
import json
import os
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from fullyconv import __version__, commands
from fullyconv.errors import FullyconvError
from fullyconv.terminal import progress_for

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print the result as JSON.")]


def _verb(command: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a command so that it takes ``--json``, shows its progress and prints its result."""
    signature = inspect.signature(command)
    hints = _hints(command)
    kept = [
        parameter.replace(annotation=hints[name])
        for name, parameter in signature.parameters.items()
        if name != "progress"
    ]
    as_json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)

    @functools.wraps(command)
    def run(*arguments: Any, as_json: bool = False, **options: Any) -> None:
        if "progress" not in signature.parameters:
            result = command(*arguments, **options)
        else:
            with progress_for(sys.stderr) as progress:
                result = command(*arguments, **options, progress=progress)
        print(json.dumps(result.to_dict(), indent=2) if as_json else result, flush=True)
        if getattr(result, "exit_code", 0):  # a verdict, such as that of check
            sys.exit(result.exit_code)

    run.__signature__ = signature.replace(parameters=[*kept, as_json], return_annotation=None)  # type: ignore[attr-defined]  # functions take attributes, which their type does not know
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, as_json]}
    return run


def _hints(command: Callable[..., Any]) -> dict[str, Any]:
    """Resolve a command's annotations but for its result, which only type checkers need."""
    annotations = {name: value for name, value in command.__annotations__.items() if name != "return"}
    probe = type("probe", (), {"__annotations__": annotations, "__module__": command.__module__})
    return typing.get_type_hints(probe, include_extras=True)


def _example(command: Callable[..., Any]) -> str:
    """Return the Examples section of a command's docstring, which cyclopts leaves out of the help."""
    lines = (inspect.getdoc(command) or "").partition("Examples\n--------\n")[2].splitlines()
    return "\n\n".join(["Example:", *lines])


app = App(
    name="fullyconv",
    version=__version__,
    help="Turn image classifiers into pixel classifiers: train, evaluate, predict images of any size.",
    help_format="markdown",
)
_groups = {"explain": App(name="explain")}  # a verb that has others under it
for _command in commands.VERBS:
    _group, _, _name = _command.__name__.rpartition("_")
    if _command.__name__ in _groups:
        _groups[_command.__name__].default(_verb(_command))
        _groups[_command.__name__].help_epilogue = _example(_command)
        continue
    _groups.get(_group, app).command(
        _verb(_command), name=_name if _group else _command.__name__, help_epilogue=_example(_command)
    )
for _app in _groups.values():
    app.command(_app)
app.register_install_completion_command(help="Let Tab complete verbs and options in this shell.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0, 2 (your input), 3 (this machine) or 1 (our fault).

    Parameters
    ----------
    arguments
        Verb and options; those of the process when ``None``.
    """
    # Python looks for garbage after 700 objects, and at its end; importing torch makes a million, all in use.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    try:
        app(sys.argv[1:] if arguments is None else arguments, exit_on_error=False)
    except CycloptsError:
        sys.exit(2)  # cyclopts has printed what was wrong
    except FullyconvError as error:
        print(f"fullyconv: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has enough; a closed descriptor keeps Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
