"""A node of an emulated network as ncclient from PyPI sees it, unchanged and over its own transport."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lxml import etree
from ncclient import manager

from qswitch.integration.emulation import Emulation

QKDN = "urn:etsi:qkd:yang:etsi-qkd-node"
NAMES = {"q": QKDN, "x": "urn:quantum-switch:yang:qkd-node-extensions"}


@contextmanager
def ncclient(network: Emulation, node: str) -> Iterator[Any]:
    netconf = network.node(node)["netconf"]
    with manager.connect(
        host=netconf["host"],
        port=netconf["port"],
        username=netconf["username"],
        key_filename=str(network.directory / netconf["key"]),
        hostkey_b64=netconf["host_key"].split()[1],
        allow_agent=False,
        look_for_keys=False,
        timeout=30,
    ) as session:
        yield session


def state(session: Any) -> etree._Element:
    """The operational state of the node."""
    return etree.fromstring(session.get(filter=("subtree", f'<qkd_node xmlns="{QKDN}"/>')).data_xml.encode())


def numbers(element: etree._Element, path: str) -> list[int]:
    """`path` with the prefixes q and x."""
    return [int(one.text or 0) for one in element.iterfind(path, NAMES)]


async def seen(session: Any, condition: Callable[[etree._Element], bool], seconds: float = 30) -> etree._Element:
    """The node's state once it is so."""
    async with asyncio.timeout(seconds):
        while not condition(found := await asyncio.to_thread(state, session)):
            await asyncio.sleep(0.2)
    return found


async def heard(session: Any, name: str, *parts: str, seconds: float = 30) -> str:
    """The first notification of this name that has all these parts; `create_subscription` was called before."""

    def take() -> str:
        while (one := session.take_notification(timeout=seconds)) is not None:
            text = str(one.notification_xml)
            if f"<{name} " in text and all(part in text for part in parts):
                return text
        raise AssertionError(f"no {name} with {parts}")

    async with asyncio.timeout(seconds):
        return await asyncio.to_thread(take)
