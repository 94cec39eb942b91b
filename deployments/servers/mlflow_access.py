"""Authorization of MLflow's requests: only the owner, and in a browser only MLflow's own pages.

MLflow's accounts call `only_the_owner`, their setting `authorization_function`, for every request except those for
health, static files and the server's version. Settings do not suffice: MLflow accepts pages from every port of this
machine. A browser that knows the password sends it with every request of such a page.
"""

from __future__ import annotations

import hmac
import os

from flask import Response, request
from werkzeug.datastructures import Authorization, Headers


def only_the_owner() -> Authorization | Response:
    """Return the owner's authorization of this request, or a refusal (401, or 403 for a foreign page)."""
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
    """Return True if a browser sends this request for a page that MLflow did not serve.

    Browsers name the page's origin in `Origin` with every request that changes data or reads across origins. Every
    request of theirs has `Sec-Fetch-Site`, the relation of the two sites. Programs send neither. The one exception is
    a link that a person follows from a foreign page: that page cannot read the answer, and a GET changes nothing in
    MLflow.
    """
    origin = headers.get("Origin")
    if origin is not None:
        # The schemes may differ: behind a proxy with TLS, the page has https and this server http.
        return origin.partition("://")[2] != headers.get("Host")
    if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return False
    is_followed_link = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return not (is_followed_link and method == "GET")


def _is_owner(user: str, password: str) -> bool:
    """Compare with the credentials of the server's start, in a time that does not depend on the given text.

    MLflow's own accounts would compute PBKDF2 for every request, and would keep the password of their creation.
    """
    owner = f"{os.environ['MLFLOW_AUTH_ADMIN_USERNAME']}:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}"
    return hmac.compare_digest(f"{user}:{password}".encode(), owner.encode())
