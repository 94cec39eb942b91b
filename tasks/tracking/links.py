"""Addresses in MLflow's web page: relative ones for its own descriptions, whole ones for other pages.

Relative ones hold whatever port or prefix the server has, also for records that were written without a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit, urlunsplit


@dataclass(frozen=True)
class RunPage:
    """The page of one run. `server` is the address that browsers use; None where no server is named."""

    experiment_id: str
    run_id: str
    server: str | None

    @property
    def route(self) -> str:
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def file(self, path: str) -> str:
        """Where the page shows a logged file: an HTML page is shown as such."""
        return f"{self.route}/artifacts/{quote(str(PurePosixPath(path)))}"

    def image_source(self, path: str) -> str:
        """What an image in a description loads."""
        return f"get-artifact?path={quote(path, safe='')}&run_uuid={self.run_id}"

    def absolute_url(self, route: str) -> str | None:
        """The address for a page that is not MLflow's own; None without a server."""
        return absolute_url(self.server, route)


def version_route(name: str, number: int) -> str:
    return f"#/models/{quote(name, safe='')}/versions/{number}"


def absolute_url(server: str | None, route: str) -> str | None:
    return f"{server}/{route}" if server else None


def browser_address(tracking_uri: str) -> str | None:
    """The server's address without credentials, which belong to programs; None for a file."""
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https"):
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
