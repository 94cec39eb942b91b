"""Take an image out of pages that were written before: its pictures go, the words beside them stay."""

from __future__ import annotations

import re
from pathlib import Path

from sdlora.core.files import replace_file

_IMAGE_ATTRIBUTE = 'data-image="'
_PURGED = '<div class="blank">purged</div>'


def image_name(sha256: str) -> str:
    """By what a page calls the image that a picture shows, so that it can be found again."""
    return sha256[:16]


def blank_in_page(path: Path, sha256: str | None) -> bool:
    """Put a grey box in place of each picture of the image; returns whether there was any.

    A page that was written before pictures had names loses all pictures of images: which it shows is not known.

    Args:
        sha256: None for every picture of the page.

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
