"""What an inventory tells its listener, as a story to read one sentence after the other."""

import asyncio

from qswitch.controller.model import NodeRecord
from qswitch.controller.southbound.notifications import Notification


class Story:
    """What the inventory says, as it comes."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.heard: list[Notification] = []

    def node_connected(self, name: str) -> None:
        self.said.put_nowait(f"{name} connected")

    def node_lost(self, name: str, problem: str) -> None:
        self.said.put_nowait(f"{name} lost: {problem}")

    def node_read(self, name: str, before: NodeRecord, after: NodeRecord) -> None:
        assert name == before.name == after.name

    def notified(self, name: str, notification: Notification) -> None:
        self.heard.append(notification)
        self.said.put_nowait(f"{name} notified")

    async def next(self) -> str:
        async with asyncio.timeout(15):
            return await self.said.get()
