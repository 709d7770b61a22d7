"""The connections that a server for applications has let in, bounded all together and for each caller."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
MAX_CONNECTIONS_OF_CALLER = 256


class Called(Protocol):
    """A connection; `caller` is the set of names in the certificate of its client."""

    caller: frozenset[str]


class Callers[T: Called]:
    def __init__(self) -> None:
        self._connections = set[T]()
        self._of_caller = Counter[frozenset[str]]()

    def __iter__(self) -> Iterator[T]:
        """As they are now."""
        return iter(list(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    def admit(self, connection: T) -> bool:
        caller = connection.caller
        if len(self._connections) >= MAX_CONNECTIONS or self._of_caller[caller] >= MAX_CONNECTIONS_OF_CALLER:
            log.warning("connection refused caller=%r open=%d", sorted(caller), self._of_caller[caller])
            return False
        self._connections.add(connection)
        self._of_caller[caller] += 1
        return True

    def forget(self, connection: T) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._of_caller[connection.caller] -= 1
            if not self._of_caller[connection.caller]:
                del self._of_caller[connection.caller]
