"""Redaction of URLs: names that contain no secrets and stay the same when a signature changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote_plus, urlsplit, urlunsplit


@dataclass(frozen=True)
class RedactedUrl:
    """URL without secrets, which may be recorded and shown.

    Attributes:
        name: URL without user, password, fragment and parameters that grant access. It does not depend on the
            signature.
        marked: name with a digest of the removed parameters, for lists in which several files share a name. It equals
            `name` if only a known kind of signature was removed, because signatures do not identify files.
    """

    name: str
    marked: str


@dataclass(frozen=True)
class _Signature:
    """Query parameters of a service's signed URLs: `markers` identify the kind; `names` and `prefix` belong to it."""

    markers: frozenset[str]
    names: frozenset[str] = frozenset()
    prefix: str = "\0"

    def owns(self, name: str) -> bool:
        return name in self.markers or name in self.names or name.startswith(self.prefix)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OLD_STYLE = _words("signature expires policy security-token")
_SIGNATURES = (
    _Signature(_words("x-amz-signature"), prefix="x-amz-"),  # S3 and compatible services
    _Signature(_words("awsaccesskeyid signature"), _OLD_STYLE, "x-amz-"),
    _Signature(_words("key-pair-id signature"), _OLD_STYLE),  # CloudFront
    _Signature(_words("x-goog-signature"), prefix="x-goog-"),
    _Signature(_words("googleaccessid signature"), _OLD_STYLE),
    _Signature(_words("ossaccesskeyid signature"), _OLD_STYLE),  # Alibaba
    _Signature(_words("x-oss-signature"), _words("x-oss-credential x-oss-date x-oss-expires x-oss-signature-version")),
    _Signature(_words("q-signature q-ak"), prefix="q-"),  # Tencent
    _Signature(  # shared access signatures of Azure
        _words("sig sv"), _words("ss srt sr sp st se si sip spr skoid sktid skt ske sks skv saoid suoid scid sdd ses")
    ),
    _Signature(_words("ex is hm")),  # Discord
    _Signature(_words("oh oe"), prefix="_nc_"),  # Facebook, Instagram
)

_GRANTS = re.compile(
    r"token|secret|passw|pwd|signature|api[-_]?key|access[-_]?key|subscription[-_]?key|credential|authori[sz]|session|jwt"
    r"|hmac|^(sig|sign|key|auth|pass|sid|ticket|policy|hdnea|hdnts|__gda__|exp|expires?|expiry)$"
)
"""Names of parameters that usually grant access, or that change together with such parameters."""

_IMAGE_SUFFIX = re.compile(r"\.(avif|bmp|gif|heic|heif|jfif|jp2|jpe?g?|jxl|png|svg|tiff?|webp)$", re.I)


def redacted_url(url: str) -> RedactedUrl:
    """Remove secrets from a URL.

    A signature of a known kind is removed, because the rest identifies the file. Other parameters that grant access
    (`token`, `key`, `expires` ...) are removed if the path has an image's suffix. Without such a suffix a digest
    replaces them, because they may be the only difference between two files.
    """
    if not any(letter in url for letter in "?@#"):
        return RedactedUrl(url, url)
    try:
        # Not httpx.URL: it normalises URLs (/a/../b, ä, :80), and a file with a changed name is downloaded again.
        parts = urlsplit(url)
    except ValueError:  # such a URL cannot be downloaded either
        unparsed = re.sub(r"//[^/]*@", "//", re.split("[?#]", url)[0])
        return RedactedUrl(_with_digest(unparsed, url), _with_digest(unparsed, url))
    kept, grants = _split_parameters(parts.query)
    host = parts.netloc.rpartition("@")[2]
    name = urlunsplit((parts.scheme, host, parts.path, "&".join(kept), ""))
    if not grants:
        return RedactedUrl(name, name)
    marked = _with_digest(name, "&".join(grants))
    return RedactedUrl(name if _IMAGE_SUFFIX.search(parts.path) else marked, marked)


def _split_parameters(query: str) -> tuple[list[str], list[str]]:
    """Split a query without known signatures into parameters to keep and parameters that grant access."""
    fields = [(unquote_plus(field.partition("=")[0]).lower(), field) for field in query.split("&") if field]
    signatures = _signatures_in({name for name, _ in fields})
    fields = [(name, field) for name, field in fields if not any(signature.owns(name) for signature in signatures)]
    grants = [field for name, field in fields if _GRANTS.search(name)]
    return [field for name, field in fields if not _GRANTS.search(name)], grants


def _signatures_in(names: Collection[str]) -> list[_Signature]:
    return [signature for signature in _SIGNATURES if signature.markers.issubset(names)]


def _with_digest(name: str, secret: str) -> str:
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{name}{'&' if '?' in name else '?'}secret=~{digest}"
