"""Removal of an image from pages written earlier: its pictures go, the text stays."""

from __future__ import annotations

import re
from pathlib import Path

from sdlora.core.files import replace_file

_IMAGE_ATTRIBUTE = 'data-image="'
_PURGED = '<div class="blank">purged</div>'


def image_name(sha256: str) -> str:
    """Shorten a digest to the name that marks the image's pictures in a page."""
    return sha256[:16]


def blank_in_page(path: Path, sha256: str | None) -> bool:
    """Replace each picture of the image by a grey box; return whether there was any.

    A page from before pictures were marked loses all pictures of images, because it does not say which they are.

    Args:
        path: the page.
        sha256: the image; None for every picture of the page.

    Raises:
        StorageError: the page cannot be written.
    """
    page = path.read_text(encoding="utf-8")
    if sha256 is None:
        pattern = r"<img[^>]*>"
    elif _IMAGE_ATTRIBUTE in page:
        pattern = rf'<img[^>]*{_IMAGE_ATTRIBUTE}{image_name(sha256)}"[^>]*>'
    else:
        pattern = r'<img class="framed"[^>]*>'
    blanked, count = re.subn(pattern, _PURGED, page)
    if count:
        replace_file(path, blanked.encode())
    return bool(count)
