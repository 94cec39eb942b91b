"""Signed URLs of a list: recognition of the same file under different signatures and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from sdlora.store.addresses import redacted_url

SharedNames = Mapping[str, Sequence[str]]
"""Lists of different URLs that are equal without their secrets, by the name without secrets."""


def survey_urls(urls: Callable[[], Iterator[str]]) -> tuple[int, SharedNames]:
    """Count the URLs of a list and find the URLs that share a name. Only a list with secrets is read more than once."""
    count, has_secrets = 0, False
    for url in urls():
        count += 1
        has_secrets = has_secrets or redacted_url(url).name != url
    if not has_secrets:
        return count, {}
    url_hashes: dict[int, int] = {}  # of the first URL, by the hash of its name
    shared_hashes = set()
    for url in urls():
        name_hash = hash(redacted_url(url).name)
        if url_hashes.setdefault(name_hash, hash(url)) != hash(url):
            shared_hashes.add(name_hash)
    urls_by_name: dict[str, dict[str, None]] = {}
    if shared_hashes:
        for url in urls():
            name = redacted_url(url).name
            if hash(name) in shared_hashes:
                urls_by_name.setdefault(name, {})[url] = None
    return count, {name: tuple(same_name) for name, same_name in urls_by_name.items()}


def file_behind(url: str, shared_names: SharedNames) -> tuple[str, Sequence[str]]:
    """Return the name under which the file of a URL is recorded, and the URLs of the file, the newest last.

    URLs that share a name are one file if they differ only in known signatures. Otherwise each may be another file.
    """
    address = redacted_url(url)
    if address.name not in shared_names:
        return address.name, (url,)
    if address.marked != address.name:
        return address.marked, (url,)
    return address.name, [other for other in shared_names[address.name] if redacted_url(other).marked == address.name]
