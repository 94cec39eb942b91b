"""Guard that keeps downloads on the public internet, away from this machine and its network.

Host names are resolved and checked here, and the connection uses the checked address. The check is part of the
connection. It therefore covers every redirect, numbers in odd spellings, and names that resolve differently the second
time.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from sdlora.data.sources.deadline import DeadlineError, call_within, seconds_left

Resolve = Callable[[str, int], list[str]]
"""Resolver of a host name and port to numeric addresses. Raises OSError if there is none."""


class ForbiddenAddressError(Exception):
    """Refusal of a host that is not on the public internet."""


def resolve(host: str, port: int) -> list[str]:
    """Resolve a host name by the system's resolver, which also reads the odd spellings of numbers in C libraries."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def is_public(address: str) -> bool:
    """Check that a numeric address is on the public internet. This includes an IPv4 address inside an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        ipv4 = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ipv4 is None and ip in _NAT64:
            ipv4 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if ipv4 is not None:
            return is_public(str(ipv4))
        if ip in _IPV4_COMPATIBLE:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def is_private(address: str) -> bool:
    """Check that a numeric address is this machine or its network. The metadata of clouds, 169.254.169.254, is not."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # Loopback is tested first: Python also counts ::1 among the reserved addresses.
    return ip.is_loopback or (ip.is_private and not (ip.is_link_local or ip.is_unspecified or ip.is_reserved))


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")


class GuardedBackend(httpcore.NetworkBackend):
    """Network backend that connects to checked addresses only, and waits no longer than the item's deadline.

    TLS still verifies the host name, because httpcore passes the name separately.

    Raises:
        ForbiddenAddressError: one of the host's addresses is not public. Its public addresses are not trusted either.
        DeadlineError: the deadline is over.
    """

    def __init__(self, *, allow_private: bool = False, resolver: Resolve = resolve) -> None:
        self._allow_private, self._resolve = allow_private, resolver
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            # The system's resolver takes no timeout, and waits up to minutes for a server of names that is silent.
            addresses = call_within(seconds_left(timeout), lambda: self._resolve(host, port))
        except DeadlineError as error:
            seconds_left(None)
            raise httpcore.ConnectTimeout(f"{host} is not resolved: {error}") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        for address in addresses:
            if not (is_public(address) or (self._allow_private and is_private(address))):
                subject = host if host == address else f"{host} is {address}, which"
                raise ForbiddenAddressError(f"{subject} is not on the public internet (allow_private_addresses)")
        last_error: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return _TimedStream(
                    self._backend.connect_tcp(address, port, seconds_left(timeout), local_address, socket_options)
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last_error = error
        raise last_error


class _TimedStream(httpcore.NetworkStream):
    """Stream whose every wait ends with the deadline of the item that uses the connection at the time.

    httpcore's own timeouts begin again with each byte that arrives.
    """

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self.close, self.get_extra_info = stream.close, stream.get_extra_info  # type: ignore[method-assign]

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, seconds_left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, seconds_left(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, seconds_left(timeout)))
