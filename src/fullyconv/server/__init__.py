"""Models over HTTP: a small interface and a page, for one machine, that takes nothing on trust."""

from fullyconv.server.access import Access
from fullyconv.server.limits import Limits
from fullyconv.server.running import Served, Server, serve

__all__ = ["Access", "Limits", "Served", "Server", "serve"]
