"""The HTTP interface: what can be asked, and the page that asks it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from fullyconv import __version__
from fullyconv.errors import InputError, MachineError
from fullyconv.models import SegmentationModel
from fullyconv.server.access import Access, Gate
from fullyconv.server.answers import ARCHIVE, OutputName, Result, Wish
from fullyconv.server.bodies import FIELD, BoundedBodies, keep
from fullyconv.server.counters import Counting
from fullyconv.server.limits import Limits
from fullyconv.server.problems import Problem, ProblemDetails, describe, install
from fullyconv.server.service import Service
from fullyconv.server.workers import Job, State

_PAGE = Path(__file__).with_name("page")
PAGE_FILES = {  # path -> file and type of all that the page is made of
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/archive.js": ("archive.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PIECE = 2**18  # bytes of an answer that are sent at a time
_GONE = 499  # what nginx calls a client that has closed its connection; nobody sees it but the counters

# Accept header -> output, in the order in which a client that takes anything is served.
_ACCEPTED: dict[str, OutputName] = {
    "image/png": "mask",
    "application/json": "json",
    "application/geo+json": "geojson",
}


class Strict(BaseModel):
    """What answers are made of."""

    model_config = ConfigDict(extra="forbid")


class ServedClass(Strict):
    """A class of a model."""

    name: str
    color: tuple[int, int, int] = Field(description="Red, green and blue, 0 to 255.")


class ServedModel(Strict):
    """A model that can be asked."""

    name: str
    kind: str = Field(description="Of architecture.")
    channels: int = Field(description="That an image must have, or become without loss.")
    dtype: str = Field(description="That an image's values must have.")
    classes: list[ServedClass]
    ignore_index: int = Field(description="The label of pixels that have no class.")


class ServedModels(Strict):
    """All models; the first answers where none is named."""

    models: list[ServedModel]
    max_upload: int = Field(description="Bytes of a request's body, at most.")
    max_pixels: int = Field(description="Pixels of an image, at most.")


class Health(Strict):
    """The server's own state."""

    status: Literal["ok"] = "ok"


class HowFar(Strict):
    """How far a request is."""

    state: State | Literal["unknown"] = Field(
        description="Where its image is; unknown where it is answered, or never came."
    )
    done: int = Field(description="Tiles that are predicted.")
    total: int = Field(
        description="Tiles that there are; 0 where there is one, or their number is not known."
    )


def create_app(service: Service, *, access: Access | None = None, limits: Limits | None = None) -> FastAPI:
    """Return the application (ASGI) that answers with a service.

    Parameters
    ----------
    service
        What predicts.
    access
        Who may ask; by default whoever reaches it under its own name.
    limits
        Of bodies; those of the service.
    """
    access, limits = access or Access(), limits or Limits()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="fullyconv",
        version=__version__,
        summary="Semantic segmentation of images of any size.",
        description="Send an image, get its mask. Nothing that is sent is kept, or leaves the machine.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        docs_url=None,  # their scripts come from other hosts
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    install(app)
    # The last one added is the first to see a request.
    app.add_middleware(BoundedBodies, limits=limits)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=access.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "X-Request-ID"),
            expose_headers=("Retry-After", "X-Request-ID"),
        )
    app.add_middleware(Gate, access=access, files=tuple(PAGE_FILES))
    app.add_middleware(Counting, counters=service.counters)
    _add_state(app, service)
    _add_models(app, service, limits)
    _add_page(app)
    _describe(app, access)
    return app


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/livez", tags=["state"], summary="Whether the server runs", responses=describe(421))
    async def livez() -> Health:
        return Health()

    @app.get("/readyz", tags=["state"], summary="Whether it can predict", responses=describe(421, 503))
    async def readyz() -> Health:
        if not service.is_ready:
            raise Problem(
                503, MachineError("a server that starts or stops", "one that is ready", "ask again soon")
            )
        return Health()

    @app.get(
        "/metrics",
        tags=["state"],
        summary="Counts for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **describe(401, 421)},
    )
    async def metrics() -> Response:
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_models(app: FastAPI, service: Service, limits: Limits) -> None:
    names = tuple(service.models)

    class Question(Wish):
        """Which model to ask, and what to answer."""

        model: Literal[names] = Field(names[0], description="Which model to ask.")  # type: ignore[valid-type]  # the names are known at run time alone

    @app.get("/v1/models", tags=["models"], summary="What can be asked", responses=describe(401, 421, 422))
    async def models() -> ServedModels:
        return ServedModels(
            models=[_served(name, model) for name, model in service.models.items()],
            max_upload=limits.upload,
            max_pixels=limits.pixels,
        )

    @app.get(
        "/v1/progress/{name}",
        tags=["predict"],
        summary="How far a request is",
        responses=describe(401, 421, 422),
    )
    async def progress(name: str) -> HowFar:
        job = service.jobs.get(name)
        if job is None:
            return HowFar(state="unknown", done=0, total=0)
        return HowFar(state=job.state, done=job.done, total=job.total)

    def work(
        request_id: Annotated[
            str | None,
            Header(
                alias="X-Request-ID",
                pattern=r"^[A-Za-z0-9-]{1,64}$",
                description="A name for `/v1/progress`; it comes back with the answer.",
            ),
        ] = None,
    ) -> Iterator[tuple[str, Job, Path]]:
        service.places.require_one()
        name = request_id or str(uuid.uuid4())
        with service.job(name) as (job, folder):
            yield name, job, folder

    @app.post(
        "/v1/predict",
        tags=["predict"],
        summary="Predict an image",
        response_class=Response,
        responses={200: _predicted(), **describe(400, 401, 403, 406, 408, 409, 413, 415, 421, 422, 429, 503)},
        openapi_extra={"requestBody": _image()},
    )
    async def predict(
        request: Request,
        question: Annotated[Question, Query()],
        begun: Annotated[tuple[str, Job, Path], Depends(work)],
    ) -> Response:
        name, job, folder = begun
        outputs = list(question.output) or [_accepted(request)]
        upload = folder / "upload"
        try:
            await keep(request, upload)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        working = asyncio.create_task(service.answer(upload, question.model, question, outputs, job))
        leaving = asyncio.ensure_future(request.receive())
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            return Response(status_code=_GONE)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        file, media_type = working.result()
        return StreamingResponse(
            _pieces(file),
            media_type=media_type,
            headers={
                "Content-Length": str(file.stat().st_size),
                "Content-Disposition": f'attachment; filename="{file.name}"',
                "X-Request-ID": name,
            },
        )


def _add_page(app: FastAPI) -> None:
    def add(path: str, content: bytes, media_type: str) -> None:
        @app.get(path, include_in_schema=False)
        async def file() -> Response:
            return Response(content, media_type=media_type)

    for path, (name, media_type) in PAGE_FILES.items():
        add(path, (_PAGE / name).read_bytes(), media_type)


def _served(name: str, model: SegmentationModel) -> ServedModel:
    table = model.classes
    return ServedModel(
        name=name,
        kind=model.architecture.kind,
        channels=model.channels,
        dtype=model.normalization.dtype,
        classes=[
            ServedClass(name=each, color=color) for each, color in zip(table.names, table.colors, strict=True)
        ],
        ignore_index=table.ignore_index,
    )


def _accepted(request: Request) -> OutputName:
    """Return the output that an Accept header asks for; a client that takes anything gets the mask."""
    weights: dict[str, float] = {}
    for part in request.headers.get("accept", "*/*").split(","):
        kind, *parameters = (each.strip() for each in part.lower().split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        with suppress(ValueError):
            weights[kind] = float(quality)

    def weight(kind: str) -> float:
        return weights.get(kind, weights.get(f"{kind.partition('/')[0]}/*", weights.get("*/*", 0.0)))

    best = max(_ACCEPTED, key=weight)  # the first of equals
    if weight(best) > 0:
        return _ACCEPTED[best]
    raise Problem(
        406,
        InputError(
            "an Accept header with no type that an image can be answered in",
            f"one of {', '.join(_ACCEPTED)}",
            "send one of these, or say what you want: ?output=mask",
        ),
    )


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece


def _image() -> dict[str, Any]:
    raw = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "schema": {
            "type": "object",
            "required": [FIELD],
            "properties": {FIELD: {"type": "string", "format": "binary"}},
        }
    }
    return {
        "required": True,
        "description": "A PNG, JPEG, TIFF, BMP, WebP or GIF image, told by its content.",
        "content": {
            "multipart/form-data": form,
            "application/octet-stream": raw,
            **{f"image/{kind}": raw for kind in ("png", "jpeg", "tiff", "bmp", "webp", "gif")},
        },
    }


def _predicted() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "description": "What was asked for. `mask`, `overlay`, `image`: PNG; `labels`, `probabilities`: "
        "NumPy's npy, H×W and H×W×classes; several: a ZIP file of them.",
        "headers": {"X-Request-ID": {"schema": {"type": "string"}}},
        "content": {
            "image/png": binary,
            "application/json": {"schema": {"$ref": "#/components/schemas/Result"}},
            "application/geo+json": {"schema": {"type": "object"}},
            "application/octet-stream": binary,
            ARCHIVE: binary,
        },
    }


def _describe(app: FastAPI, access: Access) -> None:
    """Make the OpenAPI document say all: errors, results, and the token."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                license_info=app.license_info,
                routes=app.routes,
            )
            schemas = described["components"]["schemas"]
            for model in (ProblemDetails, Result):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
            if access.token is not None:
                described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path, methods in described["paths"].items():
                    if path.startswith(("/v1/", "/metrics")):
                        for method in methods.values():
                            method["security"] = [{"token": []}]
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation extends it
