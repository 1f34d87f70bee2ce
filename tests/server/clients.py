"""A client that knows nothing of the library, and what it sends."""

import http.client
import io
import json
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import PIL.Image


def disc(height=60, width=80, seed=0):
    """An RGB image of a bright disc on noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - height // 2) ** 2 + (columns - width // 2) ** 2 < (min(height, width) // 3) ** 2
    image = rng.normal(60, 15, (height, width, 3)) + 90 * inside[..., None]
    return image.clip(0, 255).astype(np.uint8)


def encoded(image, form="PNG"):
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def problem(self):
        """The body, which must be a whole problem of RFC 9457 that says the same as the status."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = self.json
        assert problem.keys() <= {"type", "title", "status", "detail", "given", "expected", "fix"}
        assert problem["status"] == self.status
        return problem


@dataclass(frozen=True)
class Client:
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    service: object = None

    @property
    def address(self):
        parts = urlsplit(self.url)
        return parts.hostname, parts.port

    def ask(self, path, body=None, method=None, timeout=60, **headers):
        """Ask once; header names have underscores for dashes."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        given = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def predict(self, body, query="", **headers):
        return self.ask(f"/v1/predict{query}", body, **{"Content_Type": "image/png"} | headers)


def eventually(condition, seconds=30):
    """Wait until a condition holds, and return what it gives."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
    return found
