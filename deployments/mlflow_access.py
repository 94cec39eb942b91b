"""Who may use MLflow: its owner, and of the pages that a browser shows only MLflow's own.

MLflow calls `only_the_owner` for every request that is not for health, static files or the server's version: it is the
setting `authorization_function` of its accounts. Settings alone do not suffice. MLflow lets pages of every port of this
machine pass, and a browser that has once been told the password sends it along with whatever such a page asks for.
"""

from __future__ import annotations

import hmac
import os

from flask import Response, request
from werkzeug.datastructures import Authorization, Headers


def only_the_owner() -> Authorization | Response:
    """The owner who sent this request, or a refusal."""
    if from_another_page(request.method, request.headers):
        return Response("Only MLflow's own pages may ask this.", 403, mimetype="text/plain")
    authorization = request.authorization
    if (
        authorization is not None
        and authorization.type == "basic"
        and _is_owner(authorization.username or "", authorization.password or "")
    ):
        return authorization
    challenge = {"WWW-Authenticate": 'Basic realm="MLflow of sdlora", charset="UTF-8"'}
    return Response(
        "MLflow asks for user and password. On its machine, `sdlora login` shows them.", 401, challenge, "text/plain"
    )


def from_another_page(method: str, headers: Headers) -> bool:
    """Whether a browser asks this for a page that MLflow did not serve.

    Browsers name the page's origin in `Origin` with all that changes something or is to be read across origins, and
    their kinship in `Sec-Fetch-Site` with everything. Programs send neither. A link that a person follows from a page
    elsewhere is the one exception: its page cannot read what comes, and MLflow changes nothing at a GET.
    """
    origin = headers.get("Origin")
    if origin is not None:
        # Whichever scheme: behind a proxy with TLS, the page's is https and ours is not.
        return origin.partition("://")[2] != headers.get("Host")
    if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return False
    is_followed_link = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return not (is_followed_link and method == "GET")


def _is_owner(user: str, password: str) -> bool:
    """Compare with what the server was started with, in a time that does not tell how much of it was right.

    MLflow's own accounts would compute PBKDF2 for every request, and keep the password they were made with.
    """
    owner = f"{os.environ['MLFLOW_AUTH_ADMIN_USERNAME']}:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}"
    return hmac.compare_digest(f"{user}:{password}".encode(), owner.encode())
