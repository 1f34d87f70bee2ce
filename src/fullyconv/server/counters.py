"""What the server counts, for Prometheus."""

from __future__ import annotations

from time import monotonic

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Counters:
    """Counts requests, seconds and images; names no client and no image."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "fullyconv_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "fullyconv_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "fullyconv_stage_seconds",
            "What an image's time is spent on.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pixels = Counter(
            "fullyconv_pixels", "Pixels of images predicted.", ("model",), registry=self.registry
        )
        self.open = Gauge("fullyconv_requests_open", "Requests being answered.", registry=self.registry)
        self.places = Gauge("fullyconv_places_taken", "Images waiting or worked on.", registry=self.registry)

    def text(self) -> bytes:
        """Return all counts in Prometheus' text format."""
        return generate_latest(self.registry)


class Counting:
    """Counts what passes; an ASGI middleware.

    Parameters
    ----------
    app
        What answers.
    counters
        Where to count.
    """

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app, self._counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 0, monotonic()

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._counters.open.track_inprogress():
            try:
                await self._app(scope, receive, send_counted)
            finally:
                # Clients choose paths, and each would take memory: those that nobody serves count as one.
                route = getattr(scope.get("route"), "path", "other")
                self._counters.requests.labels(route, str(status or "none")).inc()
                self._counters.seconds.labels(route).observe(monotonic() - began)
