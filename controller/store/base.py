"""Where the controller keeps what must outlive it: a small key-value interface, behind which a file or a cluster can stand.

Keys are paths (`link/ID`, `app/KSID`), values are JSON. A change of several keys is one: all of it is there after a crash,
or nothing. Every change raises the revision by one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping


class Store(ABC):
    """Every method raises StoreFailed when the store cannot be read or written."""

    @abstractmethod
    async def open(self) -> None:
        """Makes the store ready; creates it when there is none."""

    @abstractmethod
    async def close(self) -> None:
        """Lets go of it; what was written stays."""

    @abstractmethod
    async def read(self, prefix: str) -> dict[str, bytes]:
        """All keys that begin with the prefix, with their values, in the order of the keys."""

    @abstractmethod
    async def write(self, changes: Mapping[str, bytes | None]) -> int:
        """Puts values, and deletes keys whose value is None, all at once and durably. Returns the new revision."""
