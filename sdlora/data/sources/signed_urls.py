"""Which URLs of a list are the same file, where signatures and tokens make them look different."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from sdlora.store.addresses import redacted_url

SharedNames = Mapping[str, Sequence[str]]
"""Different URLs of a list that have one name without their secrets, by that name."""


def survey_urls(urls: Callable[[], Iterator[str]]) -> tuple[int, SharedNames]:
    """How many URLs a list has, and those that share a name; only a list with secrets is gone through again."""
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
    """The name under which the file of a URL is recorded, and the URLs that lead to it, the newest last.

    URLs that share a name are one file if only known signatures tell them apart; else each may be a file of its own.
    """
    address = redacted_url(url)
    if address.name not in shared_names:
        return address.name, (url,)
    if address.marked != address.name:
        return address.marked, (url,)
    return address.name, [other for other in shared_names[address.name] if redacted_url(other).marked == address.name]
