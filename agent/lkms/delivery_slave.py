"""Keys with ids (014) at the end of the slave: taken when the master's end tells of them, fetched once by their ids."""

from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qswitch.protocol.lkms import KeyAck, KeyAlloc, KeyDrop, KeyTaken, alloc_header

from ..errors import PeerViolation
from ..model import LinkId
from .delivery_end import KIND, DeliveryEnd, StoredKey, consumer
from .keys import Key
from .otp import TAG_KEY, BadTag, unseal
from .pool import Refused, Taken

REMEMBERED = 1024
"""Ids of fetched keys, so that who asks for one twice is told that it is gone, and not that it is another's."""


@dataclass(slots=True)
class DeliverySlave(DeliveryEnd, ABC):
    """An end takes no more keys than it has room for, and says how many that is."""

    def on_alloc(self, message: KeyAlloc) -> None:
        """Raises PeerViolation when the other end takes what it must not; in any case the ends meet again then."""
        if not self.synced:
            return
        try:
            keys = self._claim(message)
        except (Refused, PeerViolation) as error:
            self.meet({LinkId(segment.link) for segment in message.segments})
            if isinstance(error, PeerViolation):
                raise
            return
        for key_id, stored in keys.items():
            self.held[key_id] = stored
            self.journal.key(self.config.ksid, key_id, False, stored)
        self.received = message.number
        self.send(KeyAck(self.config.ksid, self.received, self._tell_room()))

    def _claim(self, message: KeyAlloc) -> dict[str, StoredKey]:
        remote, ids, octets = self.config.remote, list(message.ids), message.size * len(message.ids)
        if len(set(ids)) < len(ids) or any(
            key_id in self.held or key_id in self.ready or key_id in self.doubtful for key_id in ids
        ):
            raise PeerViolation(remote, f"allocates a key of {self.config.ksid} twice")
        if len(ids) > self.free():
            raise Refused("no room")
        if sum(segment.length for segment in message.segments) != octets + (TAG_KEY if message.tag else 0):
            raise PeerViolation(remote, f"allocates other than whole keys to {self.config.ksid}")
        links = {segment.link for segment in message.segments}
        pool = self.pools.get(LinkId(next(iter(links)))) if len(links) == 1 else None
        if pool is None or pool.remote != remote:
            raise Refused("no such link here")
        taken = pool.claim(message.segments, KIND, consumer(self.config.ksid, ids))
        material = self._open(message, taken) if message.tag else taken.key
        since = None if message.stock else self.clock()
        return {key_id: StoredKey(material.cut(message.size), taken.made, taken.hops, since) for key_id in ids}

    def _open(self, message: KeyAlloc, taken: Taken) -> Key:
        with taken.key as pad:
            try:
                return unseal(pad, alloc_header(message), message.sealed, message.tag)
            except BadTag as error:
                raise PeerViolation(self.config.remote, f"sent a key of {self.config.ksid} that is not authentic") from error

    def _tell_room(self) -> int:
        self.told_room = self.free()
        return self.told_room

    def free(self) -> int:
        """How many more keys are taken for the application of this end."""
        return max(0, min(self.config.limit - len(self.held), self.spare()))

    def on_taken(self, message: KeyTaken) -> None:
        now = self.clock()
        for key_id in message.ids if self.synced else ():
            if (stored := self.held.get(key_id)) is not None and stored.since is None:
                self._begin(key_id, stored, now)

    def _begin(self, key_id: str, stored: StoredKey, now: float) -> None:
        stored.since = now
        self.journal.key_since(self.config.ksid, key_id, now)

    def on_drop(self, message: KeyDrop) -> None:
        if self.synced:
            self._erase([key_id for key_id in message.ids if key_id in self.held])

    def release(self, ids: Iterable[str]) -> dict[str, StoredKey]:
        """Takes keys that are all `held`; to be handed out once that is durable."""
        released = {key_id: self.held.pop(key_id) for key_id in ids}
        for key_id, stored in released.items():
            self.journal.key_gone(self.config.ksid, key_id)
            self.consumed += len(stored.key)
            self.gone[key_id] = None
        for key_id in list(self.gone)[: max(0, len(self.gone) - REMEMBERED)]:
            del self.gone[key_id]
        self._say_room()
        return released

    def give_back(self, released: Mapping[str, StoredKey]) -> None:
        """None of them has left. Who asks for a key knows its id: its time runs, if its master has not said so yet."""
        now = self.clock()
        for key_id, stored in released.items():
            stored.since = now if stored.since is None else stored.since
            self.held[key_id] = stored
            self.journal.key(self.config.ksid, key_id, False, stored)
            self.consumed -= len(stored.key)
            self.gone.pop(key_id, None)

    def _say_room(self) -> None:
        """While the other end may be short of room, every key that goes is told; else nothing need be."""
        if self.synced and self.told_room < self.config.limit // 2:
            self.send(KeyAck(self.config.ksid, self.received, self._tell_room()))

    def _erase(self, ids: list[str]) -> None:
        for key_id in ids:
            self.held.pop(key_id).key.wipe()
            self.journal.key_gone(self.config.ksid, key_id)
        if ids:
            self._say_room()
