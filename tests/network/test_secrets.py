"""No key byte in any file, log, datastore, shared memory, NETCONF reply, notification or API answer; and no core file."""

import base64
import re
from pathlib import Path

from applications import pair

from qswitch.integration.emulation import Emulation


def _forms(key: bytes) -> list[bytes]:
    """A key as raw octets, hex of either case, and Base64 wherever it starts."""
    forms = [key, key.hex().encode(), key.hex().upper().encode()]
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + key)
        forms.append(text[4 if shift else 0 : -4])
    return forms


async def test_no_key_byte_is_anywhere(madrid: Emulation) -> None:
    async with pair(madrid, "quintin-2", "quijano-2") as (a, b, ksid), madrid.api() as api:
        keys = [bytes((await a.get_key(ksid, index)).key) for index in range(8)]
        assert keys == [(await b.get_key(ksid, index)).key for index in range(8)]
        texts = [(await api.get(f"/v1/{part}")).content for part in ("nodes", "links", "apps", "topology", "events")]
    names = [path for path in madrid.directory.rglob("*") if path.is_file()]
    names += [path for path in Path("/dev/shm").glob("qs*") if path.is_file()]
    assert any(path.suffix == ".log" for path in names)
    assert any(path.name == "keys.sqlite" for path in names)
    pattern = re.compile(b"|".join(re.escape(form) for key in keys for form in _forms(key)))
    assert not [path for path in names if pattern.search(path.read_bytes())]
    assert not [text for text in texts if pattern.search(text)]


def test_agents_leave_no_core_file(madrid: Emulation) -> None:
    for node in madrid.descriptor["nodes"]:
        limits = Path(f"/proc/{node['pids']['agent']}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0", limits)
