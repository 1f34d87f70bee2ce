"""Models on the Hugging Face Hub, or on a hub of your own: the model file and a card that describes it.

A repository holds two files, ``model.safetensors`` (docs/format.md) and ``README.md``. Nothing in them is
code, and nothing that is read from a hub is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fullyconv.errors import ConfigError, InputError, MachineError
from fullyconv.images import atomic_file
from fullyconv.models import SegmentationModel, load, save

MODEL_FILE = "model.safetensors"
CARD_FILE = "README.md"


def save_pretrained(
    model: SegmentationModel, folder: str | Path, *, license: str | None = None, overwrite: bool = False
) -> Path:
    """Write a network and its card to a folder, as `from_pretrained` and a hub take them.

    Parameters
    ----------
    model
        Of a kind in `fullyconv.models.KINDS`.
    folder
        Made if it is not there.
    license
        An identifier that the card names, such as ``"apache-2.0"``.
    overwrite
        Replace files that exist.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        The network is not one that a file can hold.
    InputError
        A file exists.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is a file", "a folder", "name another one") from error
    with atomic_file(folder / CARD_FILE, overwrite=overwrite) as card:
        card.write_text(model_card(model, license=license), "utf-8")
        save(model, folder / MODEL_FILE, overwrite=overwrite)
    return folder


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    offline: bool = False,
) -> SegmentationModel:
    """Read a network from a folder or from a hub, in evaluation mode, on the CPU.

    Parameters
    ----------
    source
        A folder that `save_pretrained` wrote, or a repository, ``"owner/name"``. A folder of that name wins.
    revision
        A branch, a tag or a commit of the repository.
    token
        Of a private repository; by default the one that ``hf auth login`` has kept.
    endpoint
        Address of a hub of your own; by default ``$HF_ENDPOINT``, else https://huggingface.co.
    offline
        Take only what has been downloaded before.

    Raises
    ------
    InputError
        There is no such repository, revision or file.
    MachineError
        The hub cannot be reached, and the file has not been downloaded before.
    ModelFileError
        The file is damaged, or no model file.
    """
    folder = Path(source)
    if folder.is_dir():
        return load(folder / MODEL_FILE)
    from huggingface_hub import hf_hub_download

    with _told(str(source)):
        path = hf_hub_download(
            str(source),
            MODEL_FILE,
            revision=revision,
            token=token,
            endpoint=endpoint,
            local_files_only=offline,
            library_name="fullyconv",
        )
    return load(path)


def push_to_hub(
    model: SegmentationModel,
    repository: str,
    *,
    license: str | None = None,
    message: str = "Add a fullyconv model",
    private: bool | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a network and its card to a hub in one commit; the repository is made if it is not there.

    Parameters
    ----------
    model
        Of a kind in `fullyconv.models.KINDS`.
    repository
        ``"owner/name"``.
    license
        An identifier that the card names, such as ``"apache-2.0"``.
    message
        Of the commit.
    private
        Whether a new repository is; by default as its owner has set.
    token, endpoint
        As for `from_pretrained`.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    InputError
        The hub refuses: no such owner, no right to write.
    MachineError
        The hub cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="fullyconv")
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(model, temporary, license=license)
        with _told(repository):
            made = api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message)
    return str(commit.commit_url)


def model_card(model: SegmentationModel, *, license: str | None = None) -> str:
    """Return a network's card: Markdown behind the front matter that hubs read.

    What stands in it is what the model file says; nothing of who trained it, where, or on which files.
    """
    matter: dict[str, Any] = {
        "library_name": "fullyconv",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "fully-convolutional-network", model.architecture.kind],
    }
    if license is not None:
        matter["license"] = license
    # JSON is YAML, and needs no package.
    front = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in matter.items())
    normalization, facts = model.normalization, model.provenance
    options = model.architecture.options()
    trained = {
        "crops": "×".join(map(str, facts.training_size)) + " pixels" if facts.training_size else None,
        "steps": facts.steps,
        "seed": facts.seed,
        "library": f"fullyconv {facts.library_version}",
    }
    scores = {name.replace("_", " "): f"{value:.4f}" for name, value in facts.scores.items()}
    classes = {
        f"{index}": f"{_plain(name)} | #{red:02x}{green:02x}{blue:02x}"
        for index, (name, (red, green, blue)) in enumerate(
            zip(model.classes.names, model.classes.colors, strict=True)
        )
    }
    weights = sum(parameter.numel() for parameter in model.parameters())
    parts = [
        f"---\n{front}\n---",
        f"# {type(model).__name__} for {len(model.classes)} classes",
        "Gives each pixel of an image a class. Made with fullyconv; the one file `model.safetensors` holds "
        "the weights, the classes, and how pixels are normalised. No code is read from it.",
        "## Use",
        "```python\nimport fullyconv as fc\n\n"
        'model = fc.from_pretrained("owner/name")  # this repository, or a folder with its files\n'
        'prediction = fc.predict(model, "image.png")\n'
        "prediction.labels  # height × width class numbers\n```",
        "## Images",
        f"{model.channels} channel(s) of {normalization.dtype} in raw values; any height and width. "
        f"The network computes (value − mean) / std itself: mean {_numbers(normalization.mean)}, "
        f"std {_numbers(normalization.std)}.",
        "## Classes",
        _table(("number", "name | colour"), classes, columns=3),
        f"Pixels without a class were given {model.classes.ignore_index} in training.",
        "## Network",
        _table(
            ("option", "value"),
            {name: f"`{_plain(json.dumps(value))}`" for name, value in options.items()}
            | {"parameters": f"{weights:,}", "stride": model.stride, "margin": model.margin},
        ),
        "## Training",
        _table(("", ""), {name: value for name, value in trained.items() if value is not None}),
    ]
    if scores:
        parts += ["## Scores on validation images", _table(("score", "value"), scores)]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, str], rows: dict[str, Any], columns: int = 2) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * columns + "|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows.items()])


def _plain(text: str) -> str:
    """Return text that stands in a cell of a Markdown table as it is."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in text)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Say what a hub's answer means, and what to do."""
    from huggingface_hub import errors

    away = "a hub that answers, or a model that was downloaded before"
    try:
        yield
    except errors.HFValidationError as error:
        raise ConfigError(
            f"{repository!r}, neither a folder nor the name of a repository",
            "a folder, or owner/name",
            "check the spelling",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise InputError(
            f"no repository or revision {repository} that may be read",
            "one that exists and that you may read",
            "check the name; for a private one pass token=, or run: hf auth login",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise MachineError(
            f"{repository} is not on this machine, and the hub was not asked or did not answer",
            away,
            "connect, or copy the repository's files to a folder and give that",
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(
            f"{repository} has no file {MODEL_FILE}", "a fullyconv model", "check the name"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise MachineError("HF_HUB_OFFLINE is set", away, "unset HF_HUB_OFFLINE") from error
    except errors.HfHubHTTPError as error:
        raise InputError(
            f"the hub refuses {repository} ({str(error).strip().splitlines()[0]})",
            "an account that may do this",
            "pass token=, or run: hf auth login",
        ) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of the client it uses
        raise MachineError(f"the hub cannot be reached ({error})", away, "check the connection") from error
