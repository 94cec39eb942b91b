"""Memory that one source may take for what is listed and described: names, captions, rights, packed masks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from sys import getsizeof


@dataclass
class MemoryBudget:
    """Counter of the bytes that a source keeps in memory.

    Attributes:
        limit: in bytes.
        used: in bytes, at most `limit`.
    """

    limit: int
    used: int = 0
    # A finaliser may give bytes back while the same thread counts others.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def take(self, byte_count: int, share: float = 1.0) -> bool:
        """Count bytes; False if all bytes would exceed this share of the limit, and then they do not count."""
        with self._lock:
            if self.used + byte_count > share * self.limit:
                return False
            self.used += byte_count
            return True

    def give_back(self, byte_count: int) -> None:
        """Stop counting bytes that were taken."""
        with self._lock:
            self.used -= byte_count

    @property
    def excess(self) -> str:
        """Reason to refuse what exceeds the limit."""
        return f"the source needs more memory than max_source_memory_bytes = {self.limit:,}"


def size_of(*values: object) -> int:
    """Return the bytes of strings, bytes and numbers in memory, without what they refer to."""
    return sum(map(getsizeof, values))
