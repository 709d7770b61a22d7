"""Key material lives in this one type: it never shows itself, compares in constant time, and is wiped after use.

Python copies immutable bytes freely, so material is kept in a bytearray that is overwritten by `wipe`. `view` lends it
without a copy; whoever must hand bytes to a library makes the copy as late and drops it as early as possible.
"""

import hmac
from types import TracebackType
from typing import NoReturn, Self


class Key:
    """Secret octets. No repr, no str, no pickling, no hashing."""

    __slots__ = ("_material",)

    def __init__(self, material: bytes | bytearray | memoryview) -> None:
        """Takes over a bytearray (the caller must forget it); copies anything else."""
        self._material = material if isinstance(material, bytearray) else bytearray(material)

    def __len__(self) -> int:
        return len(self._material)

    def view(self) -> memoryview:
        """The octets, read-only, without a copy; release the view before the key is wiped."""
        return memoryview(self._material).toreadonly()

    def take(self, offset: int, length: int) -> "Key":
        """A new key of `length` octets from `offset` on. ValueError when they are not all there."""
        if offset < 0 or length < 0 or offset + length > len(self._material):
            raise ValueError(f"octets {offset}..{offset + length} of a key of {len(self._material)}")
        return Key(self._material[offset : offset + length])

    def cut(self, length: int) -> "Key":
        """Takes the first `length` octets away, as a key of their own. ValueError when they are not all there."""
        front = self.take(0, length)
        self._material[:length] = bytes(length)
        del self._material[:length]
        return front

    def cut_back(self, length: int) -> "Key":
        """The same at the end."""
        first = len(self._material) - length
        back = self.take(first, length)
        self._material[first:] = bytes(length)
        del self._material[first:]
        return back

    def append(self, other: "Key") -> None:
        """Moves the octets of `other` to the end of this key; `other` is wiped."""
        self._material += other._material
        other.wipe()

    def wipe(self) -> None:
        """Overwrites the octets; the length stays."""
        self._material[:] = bytes(len(self._material))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.wipe()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._material, other._material)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Key of {len(self._material)} octets>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("key material is not pickled")
