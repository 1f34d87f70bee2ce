"""Errors as clients see them: RFC 9457, always and everywhere."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from fullyconv.errors import ConfigError, FullyconvError, ImageError, MachineError

MEDIA_TYPE = "application/problem+json"

_STATUS: dict[type[FullyconvError], int] = {ImageError: 422, ConfigError: 422, MachineError: 503}


class ProblemDetails(BaseModel):
    """What went wrong, as RFC 9457 writes it, with what was given, what was expected and what to do."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field("about:blank", description="Always about:blank: the status says which kind it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong this time.")
    given: str | None = Field(None, description="What was found.")
    expected: str | None = Field(None, description="What would have been right.")
    fix: str | None = Field(None, description="What to do next.")


class Problem(Exception):  # noqa: N818 (RFC 9457 calls it so)
    """An answer to a request that cannot be served.

    Parameters
    ----------
    status
        Of HTTP.
    error
        What was given, what was expected, and what to do next.
    headers
        To send with it.
    """

    def __init__(self, status: int, error: FullyconvError, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, str(error))
        self.status, self.error, self.headers = status, error, headers or {}

    def response(self) -> Response:
        """Return what is sent."""
        error = self.error
        parts = {"given": error.given, "expected": error.expected, "fix": error.fix}
        return _response(self.status, str(error), self.headers, parts)


def describe(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of answers with these statuses."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def body(status: int, detail: str) -> bytes:
    """Return a whole problem as bytes, for who answers without an application."""
    return bytes(_response(status, detail, {}, {}).body)


def install(app: FastAPI) -> None:
    """Make every error of an application a problem."""
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(FullyconvError, _of_error)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_status)
    app.add_exception_handler(Exception, _of_anything)


async def _of_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _of_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FullyconvError)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return Problem(status, error).response()


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return _response(422, said[:2000], {}, {})


async def _of_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _response(error.status_code, error.detail, dict(error.headers or {}), {})


async def _of_anything(request: Request, error: Exception) -> Response:
    # What it was is in the server's log, and no client's business.
    return _response(500, "the server failed; its log says why", {}, {})


def _response(status: int, detail: str, headers: dict[str, str], parts: dict[str, str]) -> Response:
    phrase = HTTPStatus(status).phrase
    details = ProblemDetails(title=phrase, status=status, detail=detail or phrase, **parts)
    return JSONResponse(details.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)
