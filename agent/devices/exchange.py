"""The two ends of a connected simulated pair: one makes blocks and sends them, one takes them.

The transmitter hands a block to its own key store once the receiver's store took it, so that a full store on either side
stops both, with at most `WINDOW` blocks under way. Whatever is under way when the connection ends is wiped.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from io import FileIO
from typing import Self

from ..lkms.keys import Key
from .base import Deliver
from .channel import MAX_BLOCK, Channel, ChannelLost, Kind

WINDOW = 4
BATCH_SECONDS = 0.05  # blocks are made in batches, so that a fast link does not wake the loop for each
IDLE_SECONDS = 1.0  # a slow link looks at its rate again after this
BURST_SECONDS = 0.25  # what a pair that was held up may make up for at once


class Numbers:
    """The block numbers of one link at one end: each is used once, whatever becomes of the block."""

    def __init__(self, following: int) -> None:
        self.following = following

    def raise_to(self, first: int) -> None:
        self.following = max(self.following, first)

    def draw(self) -> int:
        self.following += 1
        return self.following - 1

    def accept(self, number: int) -> None:
        """Raises ChannelLost when the far end uses a number again."""
        if number < self.following:
            raise ChannelLost(f"the far end repeats block {number}")
        self.following = number + 1


class Transmitter:
    """`rate` answers bit/s of secret key now; a block has `block_bytes` octets."""

    def __init__(
        self, channel: Channel, numbers: Numbers, deliver: Deliver, block_bytes: int, rate: Callable[[], float]
    ) -> None:
        self._channel, self._numbers, self._deliver = channel, numbers, deliver
        self._block_bytes, self._rate = block_bytes, rate
        self._sent: deque[tuple[int, Key]] = deque()
        self._taken: asyncio.Queue[tuple[int, Key]] = asyncio.Queue()
        self._window = asyncio.Semaphore(WINDOW)
        self._random = open_random()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._random.close()
        wipe_all(self._sent)
        wipe_queue(self._taken)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._make())
            tasks.create_task(self._hear())
            tasks.create_task(self._store())

    async def _make(self) -> None:
        loop, bits = asyncio.get_running_loop(), self._block_bytes * 8
        budget, last = 0.0, loop.time()
        while True:
            wanted = (bits - budget) / max(self._rate(), 1.0)
            await asyncio.sleep(min(max(wanted, BATCH_SECONDS), IDLE_SECONDS))
            rate, now = self._rate(), loop.time()
            budget = min(budget + (now - last) * rate, max(2 * bits, BURST_SECONDS * rate))
            last = now
            while budget >= bits:
                await self._send()
                budget -= bits

    async def _send(self) -> None:
        await self._window.acquire()
        key = Key(self._draw())
        number = self._numbers.draw()
        self._sent.append((number, key))
        with key.view() as material:
            await self._channel.send(Kind.BLOCK, number, material)

    def _draw(self) -> bytearray:
        material = bytearray(self._block_bytes)
        with memoryview(material) as view:
            filled = 0
            while filled < len(view):
                filled += self._random.readinto(view[filled:]) or 0
        return material

    async def _hear(self) -> None:
        while True:
            number, _ = await self._channel.receive(Kind.TAKEN)
            if not self._sent or self._sent[0][0] != number:
                raise ChannelLost(f"the far end took block {number}, which is not the next")
            self._taken.put_nowait(self._sent.popleft())

    async def _store(self) -> None:
        while True:
            await self._deliver(*await self._taken.get())
            self._window.release()


class Receiver:
    """Takes what comes, in order; its answers are what lets the transmitter go on."""

    def __init__(self, channel: Channel, numbers: Numbers, deliver: Deliver) -> None:
        self._channel, self._numbers, self._deliver = channel, numbers, deliver
        self._arrived: asyncio.Queue[tuple[int, Key]] = asyncio.Queue()  # bounded by the transmitter's window

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        wipe_queue(self._arrived)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear())
            tasks.create_task(self._store())

    async def _hear(self) -> None:
        while True:
            number, material = await self._channel.receive(Kind.BLOCK, MAX_BLOCK)
            key = Key(material)
            try:
                self._numbers.accept(number)
            except ChannelLost:
                key.wipe()
                raise
            self._arrived.put_nowait((number, key))

    async def _store(self) -> None:
        while True:
            number, key = await self._arrived.get()
            await self._deliver(number, key)
            await self._channel.send(Kind.TAKEN, number)


def open_random() -> FileIO:
    """The kernel's generator, to be read into memory of ours: the answer of os.urandom could not be wiped."""
    return FileIO("/dev/urandom")


def wipe_all(blocks: deque[tuple[int, Key]]) -> None:
    while blocks:
        blocks.popleft()[1].wipe()


def wipe_queue(blocks: asyncio.Queue[tuple[int, Key]]) -> None:
    while not blocks.empty():
        blocks.get_nowait()[1].wipe()
