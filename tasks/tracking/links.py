"""URLs of MLflow's web pages: relative URLs for MLflow's own descriptions, absolute URLs for other pages.

Relative URLs do not depend on the server's port or prefix. They also work for records written without a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit, urlunsplit


@dataclass(frozen=True)
class RunPage:
    """Page of one run. `server` is the address for browsers; None without a server."""

    experiment_id: str
    run_id: str
    server: str | None

    @property
    def route(self) -> str:
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def file(self, path: str) -> str:
        """Return the relative URL that displays a logged file; HTML files are rendered."""
        return f"{self.route}/artifacts/{quote(str(PurePosixPath(path)))}"

    def image_source(self, path: str) -> str:
        """Return the relative URL for an `<img>` of a description."""
        return f"get-artifact?path={quote(path, safe='')}&run_uuid={self.run_id}"

    def absolute_url(self, route: str) -> str | None:
        """Return the URL for pages outside of MLflow; None without a server."""
        return absolute_url(self.server, route)


def version_route(name: str, number: int) -> str:
    return f"#/models/{quote(name, safe='')}/versions/{number}"


def absolute_url(server: str | None, route: str) -> str | None:
    return f"{server}/{route}" if server else None


def browser_address(tracking_uri: str) -> str | None:
    """Return the server's address without credentials, which are for programs only; None for a file."""
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https"):
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
