"""Download of one image from the web: bounded in size and time, polite to hosts, and from public addresses only."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from weakref import finalize

import httpcore
import httpx

from sdlora.data.config import DataConfig
from sdlora.data.sources.base import Content, UnreadableItemError
from sdlora.data.sources.deadline import Deadline, DeadlineError, deadline_of_item, seconds_left
from sdlora.data.sources.internet import ForbiddenAddressError, GuardedBackend, Resolve, resolve
from sdlora.data.sources.memory import MemoryBudget
from sdlora.data.threads import TryLaterError

MAX_REDIRECTS = 5
MAX_HOST_FAILURES = 20
"""Consecutive failures after which a host is skipped for the rest of the run."""

MAX_WAIT_SECONDS = 300.0
"""Longest pause that a host may ask for. After a longer request, its images wait for the next run."""

USER_AGENT = "sdlora/0.1 (collects training images; honours X-Robots-Tag)"

_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_OPT_OUTS = frozenset({"noai", "noimageai"})


@dataclass
class Downloader:
    """Pool of connections that many threads share.

    Attributes:
        url_failures: transient failures of each URL.
        host_failures: consecutive transient failures of each host.
        memory: of the source, in which the bodies of parallel downloads count, too; None for a budget of its own.
        spent_seconds: time that failed tries of each URL took, because all tries of an image have one deadline.
    """

    config: DataConfig
    resolver: Resolve = resolve
    url_failures: Counter[str] = field(default_factory=Counter)
    host_failures: Counter[str] = field(default_factory=Counter)
    spent_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    stopped: threading.Event = field(default_factory=threading.Event)

    memory: MemoryBudget | None = None

    def __post_init__(self) -> None:
        self._memory = self.memory or MemoryBudget(self.config.max_source_memory_bytes)
        backend = GuardedBackend(allow_private=self.config.allow_private_addresses, resolver=self.resolver)
        self._pool = httpcore.ConnectionPool(
            max_connections=self.config.url_workers, keepalive_expiry=30.0, network_backend=backend
        )

    def close(self) -> None:
        self.stopped.set()
        self._pool.close()

    def fetch(self, url: str, recorded_stamp: str | None = None, older: Sequence[str] = ()) -> Content | None:
        """Fetch the bytes of a URL; None if the host reports that `recorded_stamp` still holds.

        Connecting, headers, redirects and body of all URLs and tries have one deadline, `url_total_seconds`. The pauses
        between tries do not count.

        Args:
            older: further URLs of the same file, the newest last. They are tried if `url` is refused.
        Raises:
            UnreadableItemError: the bytes cannot be fetched in time, are too many, are no image, or may not be used.
            TryLaterError: the host asks for a pause, or the failure is transient.
        """
        deadline = Deadline(self.config.url_total_seconds, self.spent_seconds.pop(url, 0.0), self.stopped)
        candidates = [*older, url]
        with deadline_of_item(deadline):
            while True:
                candidate = candidates.pop()
                try:
                    return self._fetch(candidate, recorded_stamp)
                except UnreadableItemError:
                    if not candidates:
                        raise
                except DeadlineError as error:
                    self.host_failures[_host(candidate)] += 1
                    raise UnreadableItemError(str(error)) from error
                except TryLaterError:
                    self.spent_seconds[url] = deadline.used_seconds
                    raise

    def _fetch(self, url: str, recorded_stamp: str | None) -> Content | None:
        host = _host(url)
        if self.host_failures[host] >= MAX_HOST_FAILURES:
            raise UnreadableItemError(f"{host} failed {MAX_HOST_FAILURES} times in a row and is skipped")
        try:
            content = self._follow(url, recorded_stamp)
        except ForbiddenAddressError as error:
            raise UnreadableItemError(str(error)) from error
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            seconds_left(None)  # a wait that the deadline cut short is no failure that may pass
            self._try_later(url, f"{type(error).__name__}: {error}".rstrip(": "), None)
            raise AssertionError from error  # _try_later always raises
        self.host_failures[host] = 0
        return content

    def _follow(self, url: str, recorded_stamp: str | None) -> Content | None:
        address = checked_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._pool.stream(
                "GET",
                _httpcore_url(address),
                headers=_request_headers(address, recorded_stamp),
                extensions=self._timeouts(),
            ) as response:
                headers = httpx.Headers(response.headers)
                if response.status in (301, 302, 303, 307, 308) and "location" in headers:
                    address = checked_url(headers["location"], base=address)
                    continue
                return self._content_of(url, response, headers)
        raise UnreadableItemError(f"more than {MAX_REDIRECTS} redirects")

    def _content_of(self, url: str, response: httpcore.Response, headers: httpx.Headers) -> Content | None:
        if response.status == 304:
            return None
        if response.status in _TRANSIENT_STATUSES:
            self._try_later(url, f"HTTP {response.status}", _retry_after(headers.get("retry-after")))
        if response.status != 200:
            raise UnreadableItemError(f"HTTP {response.status}")
        if self.config.respect_noai and (directive := opt_out(headers.get("x-robots-tag", ""))):
            raise UnreadableItemError(f"its host opts out of training: X-Robots-Tag: {directive} (respect_noai)")
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type.startswith("text/") or media_type in ("application/json", "application/xhtml+xml"):
            raise UnreadableItemError(f"no image but {media_type}")
        return self._read(url, response, headers)

    def _read(self, url: str, response: httpcore.Response, headers: httpx.Headers) -> Content:
        """Read a body. Its bytes count against the source's memory for as long as the content exists."""
        limit = self.config.max_file_bytes
        declared_size = headers.get("content-length", "")
        if declared_size.isascii() and declared_size.isdigit() and int(declared_size) > limit:
            raise UnreadableItemError(f"{int(declared_size):,} bytes, more than max_file_bytes = {limit:,}")
        chunks, byte_count = [], 0
        try:
            for chunk in response.iter_stream():
                if not self._memory.take(len(chunk)):
                    self._try_later(url, self._memory.excess, None)
                byte_count += len(chunk)
                if byte_count > limit:
                    raise UnreadableItemError(f"more than max_file_bytes = {limit:,}")
                seconds_left(None)  # many chunks may come from one read
                chunks.append(chunk)
            if declared_size.isascii() and declared_size.isdigit() and byte_count < int(declared_size):
                raise httpcore.ReadError(f"{byte_count:,} of {int(declared_size):,} bytes came")
        except BaseException:
            self._memory.give_back(byte_count)
            raise
        content = Content(b"".join(chunks), _stamp(headers))
        finalize(content, self._memory.give_back, byte_count)
        return content

    def _try_later(self, url: str, reason: str, wait_seconds: float | None) -> None:
        self.url_failures[url] += 1
        self.host_failures[_host(url)] += 1
        if self.url_failures[url] > self.config.url_retries:
            raise UnreadableItemError(f"{reason}, {self.url_failures[url]} times")
        if wait_seconds is None:
            # Half of the wait is random, so that not all workers ask a host at the same moment.
            wait_seconds = 2 ** self.url_failures[url] * (0.5 + random.random() / 2)  # noqa: S311
        elif wait_seconds > MAX_WAIT_SECONDS:
            raise UnreadableItemError(f"{reason}, and its host asks to wait {wait_seconds:.0f} s: collect again later")
        raise TryLaterError(wait_seconds)

    def _timeouts(self) -> dict[str, dict[str, float]]:
        seconds = self.config.url_timeout_seconds  # for each wait; the deadline of the item may shorten it
        return {"timeout": {"connect": seconds, "read": seconds, "write": seconds, "pool": 10 * seconds}}


def checked_url(url: str, base: httpx.URL | None = None) -> httpx.URL:
    """Check a URL and return the form that is sent, in ASCII and without its fragment.

    Args:
        base: URL to which the URL of a redirect is relative.
    Raises:
        UnreadableItemError: the URL is malformed, is not http or https, or carries a user name or password.
    """
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise UnreadableItemError("no URL: it has spaces or control characters")
    try:
        _ = urlsplit(url).port  # refuses the ports 99999, 1_0 and -1, which httpx.URL accepts
        address = (base.join(url) if base else httpx.URL(url)).copy_with(fragment=None)
    except (ValueError, httpx.InvalidURL):  # the library's message may repeat a password
        raise UnreadableItemError("no URL: its host or port cannot be understood") from None
    if address.scheme not in ("http", "https"):
        raise UnreadableItemError(f"its scheme is {address.scheme or 'missing'}, expected http or https")
    if not address.raw_host:
        raise UnreadableItemError("no URL: it has no host")
    if address.userinfo:
        raise UnreadableItemError("it carries a user name or password")
    return address


def _host(url: str) -> str:
    return checked_url(url).netloc.decode()


def opt_out(robots: str) -> str | None:
    """Return the directive of an `X-Robots-Tag` that forbids training to every robot or to sdlora; None without one."""
    for rule in robots.lower().split(","):
        agent, colon, directive = rule.rpartition(":")
        if directive.strip() in _OPT_OUTS and (not colon or agent.strip() in ("sdlora", "*")):
            return directive.strip()
    return None


def _httpcore_url(address: httpx.URL) -> httpcore.URL:
    """Pass the address in its parts: httpcore's own parser would cut `;v=2.png` off a path."""
    return httpcore.URL(scheme=address.raw_scheme, host=address.raw_host, port=address.port, target=address.raw_path)


def _request_headers(address: httpx.URL, recorded_stamp: str | None) -> list[tuple[bytes, bytes]]:
    headers = {
        "Host": address.netloc.decode(),
        "User-Agent": USER_AGENT,
        "Accept": "image/*,*/*;q=0.5",
        "Accept-Encoding": "identity",  # a compressed body could unpack to more than was sent
    }
    validator, _, value = (recorded_stamp or "").partition(" ")
    if validator == "etag":
        headers["If-None-Match"] = value
    elif validator == "modified":
        headers["If-Modified-Since"] = value
    return httpx.Headers(headers, encoding="utf-8").raw  # an ETag need not be ASCII


def _stamp(headers: httpx.Headers) -> str:
    """Return the validator that a conditional request repeats: the ETag, else the time of the last change."""
    if "etag" in headers:
        return f"etag {headers['etag']}"
    return f"modified {headers['last-modified']}" if "last-modified" in headers else "fetched"


def _retry_after(value: str | None) -> float | None:
    """Return the seconds in a `Retry-After` header, given as a number or as a date; None if neither can be read."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
