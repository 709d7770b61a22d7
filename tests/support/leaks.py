"""Keys in what must not hold any: as raw octets, in hex, in Base64, as Python shows bytes or a list of numbers."""

import base64
import re
from collections.abc import Collection, Iterable

SUSPECT = re.compile(rb"[0-9A-Fa-f]{24}|[A-Za-z0-9+/]{24}|\\x[0-9a-f]{2}|(?:\d{1,3}, ?){8}|[\x80-\xff]")
TELLING = 12  # octets of a key that are enough to know it by


def forms(key: bytes) -> list[bytes]:
    """Base64 wherever the key starts in what was encoded."""
    told = key[:TELLING]
    found = [told, told.hex().encode(), told.hex().upper().encode(), told.hex(" ").encode()]
    shown = repr(told)[2:-1].encode()
    found += [shown, shown.replace(b"'", b"\\'")]
    found += [", ".join(map(str, told)).encode(), ",".join(map(str, told)).encode()]
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + key[: TELLING + 3])
        found.append(text[4 if shift else 0 : -4])
    return found


def in_files(files: Iterable[bytes], keys: Collection[bytes]) -> list[bytes]:
    """Of a few keys, those that are anywhere."""
    pattern = re.compile(b"|".join(re.escape(form) for key in keys for form in forms(key)))
    return [found.group() for octets in files for found in [pattern.search(octets)] if found]


def in_logs(logs: Iterable[bytes], keys: Collection[bytes]) -> list[bytes]:
    """Of many keys, those that a line of text tells: only lines that may hold any are looked at closely."""
    lines = {line for log in logs for line in log.splitlines() if SUSPECT.search(line)}
    told = b"\n".join(lines)
    assert len(told) < 1 << 20, lines.pop()
    return [key for key in keys if any(form in told for form in forms(key))]
