"""Which URLs of a list are the same file, where signatures and tokens make them look different."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from sdlora.store.addresses import redacted_url

SharedNames = Mapping[str, Sequence[str]]
"""Different URLs of a list that have one name without their secrets, by that name."""


def survey(urls: Callable[[], Iterator[str]]) -> tuple[int, SharedNames]:
    """How many URLs a list has, and those that share a name; only a list with secrets is gone through again."""
    count, secrets = 0, False
    for url in urls():
        count += 1
        secrets = secrets or redacted_url(url).name != url
    if not secrets:
        return count, {}
    first: dict[int, int] = {}
    shared = set()
    for url in urls():
        number = hash(redacted_url(url).name)
        if first.setdefault(number, hash(url)) != hash(url):
            shared.add(number)
    found: dict[str, dict[str, None]] = {}
    if shared:
        for url in urls():
            name = redacted_url(url).name
            if hash(name) in shared:
                found.setdefault(name, {})[url] = None
    return count, {name: tuple(listed) for name, listed in found.items()}


def file_behind(url: str, shared: SharedNames) -> tuple[str, Sequence[str]]:
    """The name under which the file of a URL is recorded, and the URLs that lead to it, the newest last.

    URLs that share a name are one file if only known signatures tell them apart; else each may be a file of its own.
    """
    address = redacted_url(url)
    if address.name not in shared:
        return address.name, (url,)
    if address.marked != address.name:
        return address.marked, (url,)
    return address.name, [one for one in shared[address.name] if redacted_url(one).marked == address.name]
