"""Who may ask: by the name the server was called by, the page that asks, and a token."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fullyconv.errors import ConfigError, InputError
from fullyconv.server.problems import Problem

LEAST_TOKEN = 16
OPEN = frozenset({"/", "/livez", "/readyz", "/openapi.json"})  # say nothing of anybody's images

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Parameters
    ----------
    hosts
        Names that requests may call the server by, beside those of this machine itself and the address they
        came to. Others are refused, so that no web page can reach the server through a name of its own (DNS
        rebinding).
    origins
        Other web pages that may ask and read, such as ``"https://example.org"``; none by default.
    token
        What clients have to send as ``Authorization: Bearer TOKEN``; None asks for nothing.

    Raises
    ------
    ConfigError
        The token is too short to be one, or has characters that no header carries.
    """

    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is None:
            return
        if len(self.token) < LEAST_TOKEN or not self.token.isascii() or not self.token.isprintable():
            raise ConfigError(
                f"a token of {len(self.token)} characters",
                f"{LEAST_TOKEN} or more printable ASCII characters",
                "make one: openssl rand -hex 32 > token",
            )

    def require_for(self, host: str) -> None:
        """Raise `ConfigError` if others than this machine could ask without a token."""
        if self.token is None and not is_loopback(host):
            raise ConfigError(
                f"--host {host}, which other machines reach, without a token",
                "a token that clients have to send",
                "openssl rand -hex 32 > token, and pass --token-file token",
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """Lets in who may ask, and tells browsers to keep answers to this page; an ASGI middleware.

    Parameters
    ----------
    app
        What is asked.
    access
        Who may ask.
    files
        Paths of the page's own files, which need no token.
    """

    def __init__(self, app: ASGIApp, access: Access, files: Collection[str]) -> None:
        self._app, self._access = app, access
        self._open = OPEN | set(files)
        self._hosts = {"localhost", "127.0.0.1", "::1", *(host.lower() for host in access.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem = self._refusal(scope)
        await (problem.response() if problem else self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if not self._is_called_rightly(headers.get("host", ""), scope):
            return Problem(
                421,
                InputError(
                    "a request for another host",
                    "localhost, the server's address, or a name it was told of",
                    "start the server with --allow-host and the name",
                ),
            )
        if not self._is_own_page(headers.get("origin"), headers.get("host", "")):
            return Problem(
                403,
                InputError(
                    "a request of another web page",
                    "one of the server's own page, or of a program",
                    "start the server with --allow-origin and the page's origin",
                ),
            )
        if not self._has_token(headers.get("authorization", ""), scope):
            return Problem(
                401,
                InputError(
                    "no token, or a wrong one", "the server's", "send the header Authorization: Bearer TOKEN"
                ),
                {"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_called_rightly(self, host: str, scope: Scope) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self._hosts or name == (scope.get("server") or ("",))[0]

    def _is_own_page(self, origin: str | None, host: str) -> bool:
        if origin is None or origin in self._access.origins:
            return True
        return origin.partition("://")[2].lower() == host.lower()

    def _has_token(self, authorization: str, scope: Scope) -> bool:
        token = self._access.token
        # Browsers ask with OPTIONS, and without a token, whether they may ask at all.
        if token is None or scope["path"] in self._open or scope["method"] == "OPTIONS":
            return True
        kind, _, given = authorization.partition(" ")
        is_right = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
        return kind.lower() == "bearer" and is_right
