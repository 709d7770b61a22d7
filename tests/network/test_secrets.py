"""No key byte in any file, log, datastore, shared memory, NETCONF reply, notification or API answer; and no core file."""

import base64
import random
import re
from contextlib import suppress
from pathlib import Path

from applications import pair, rest_client
from hypothesis import given, strategies as st
from leaks import in_files, in_logs
from ncclient import manager

from qswitch.integration.emulation import Emulation


async def test_no_key_byte_is_anywhere(madrid: Emulation) -> None:
    async with (
        pair(madrid, "quintin-2", "quijano-2") as (a, b, ksid),
        rest_client(madrid, "quintin-2") as master,
        rest_client(madrid, "quijano-2") as slave,
        madrid.api() as api,
    ):
        keys = [bytes((await a.get_key(ksid, index)).key) for index in range(8)]
        assert keys == [(await b.get_key(ksid, index)).key for index in range(8)]
        taken = await master.enc_keys("quijano-2", 8, 256, ["quintin-1"])
        assert await slave.dec_keys("quintin-2", list(taken)[:4]) == dict(list(taken.items())[:4])
        keys += map(bytes, taken.values())
        texts = [(await api.get(f"/v1/{part}")).content for part in ("nodes", "links", "apps", "topology", "events")]
        texts += [_netconf(madrid, node) for node in ("Quintin", "Quijote", "Quijano")]
    files = _files(madrid)
    assert any(path.suffix == ".log" for path in files)
    assert any(path.name == "keys.sqlite" for path in files)
    assert any(b" DEBUG " in octets for path, octets in files.items() if path.suffix == ".log")
    assert not [path for path, octets in files.items() if in_files([octets], keys)]
    assert not in_files(texts, keys)
    # What is looked for would be found: a fingerprint that is there on purpose, the key stream's id.
    assert any(ksid.encode() in text for text in texts)


@given(st.integers(), st.integers(0, 2))
def test_what_is_looked_for_would_be_found(seed: int, shift: int) -> None:
    key = random.Random(seed).randbytes(32)
    ways = [key, key.hex().encode(), repr(key).encode(), repr(bytearray(key)).encode(), str(list(key)).encode()]
    ways.append(base64.b64encode(bytes(shift) + key + bytes(2)))
    for way in ways:
        assert in_files([b"key=" + way], [key])
        if not set(way) & set(b"\n\r\v\f\x1c\x1d\x1e\x85"):  # which would be two lines
            assert way == key or in_logs([b"2026-11-25 DEBUG key=" + way + b" end"], [key])


def _files(network: Emulation) -> dict[Path, bytes]:
    """All files of the network and of its datastores' shared memory, but those that vanish while we look."""
    files = {}
    for path in (*network.directory.rglob("*"), *Path("/dev/shm").glob("qs*")):
        with suppress(FileNotFoundError):
            if path.is_file():
                files[path] = path.read_bytes()
    return files


def _netconf(network: Emulation, node: str) -> bytes:
    """All that a controller is shown of a node, configuration and state."""
    netconf = network.node(node)["netconf"]
    with manager.connect(
        host=netconf["host"],
        port=netconf["port"],
        username=netconf["username"],
        key_filename=str(network.directory / netconf["key"]),
        hostkey_b64=netconf["host_key"].split()[1],
        allow_agent=False,
        look_for_keys=False,
    ) as session:
        return (session.get().data_xml + session.get_config("running").data_xml).encode()


def test_agents_leave_no_core_file(madrid: Emulation) -> None:
    for node in madrid.descriptor["nodes"]:
        limits = Path(f"/proc/{node['pids']['agent']}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0", limits)
