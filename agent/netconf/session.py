"""One NETCONF session (RFC 6241): hello, then one operation after the other, and notifications in between.

Operations block and run in worker threads, one at a time per session, so that replies keep the order of requests. What
goes to the client passes one queue with a limit: a client that does not read loses its session, and nobody waits for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncssh

from qswitch.protocol import netconf
from qswitch.protocol.netconf import Attributes, Framing, FramingError, Hello, MalformedMessage, RpcError, RpcFailed

from .datastore import UserSession
from .operations import Call, perform
from .subscriptions import Subscription

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)

HELLO_SECONDS = 30.0
# A client that reads nothing may leave this much behind before it is cut off.
MAX_QUEUED_BYTES = 16 * 1024 * 1024
_READ = 65536
_FLUSH_SECONDS = 5.0  # for a client that is slow to take the last replies


class SessionOver(Exception):
    """The session cannot go on; the text is for the log."""


class Session:
    """A session from the SSH channel's start to its end. Made and run on the loop."""

    def __init__(
        self,
        server: "Server",
        session_id: int,
        user: str,
        host: str,
        stdin: asyncssh.SSHReader[bytes],
        stdout: asyncssh.SSHWriter[bytes],
    ) -> None:
        self.id, self.user, self.host = session_id, user, host
        self.login_time = datetime.now(UTC)
        self.in_rpcs = self.in_bad_rpcs = self.out_rpc_errors = self.out_notifications = 0
        self.ended = asyncio.Event()  # everything released
        self.subscription: Subscription | None = None
        self._server = server
        self._stdin, self._stdout = stdin, stdout
        self._framing = Framing(server.max_message)
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()  # for the writer: something to send, or the end
        self._sent = asyncio.Event()  # by the writer: something was sent, or cannot be
        self._held: list[bytes] | None = []  # notifications before the reply to create-subscription
        self._closing = False
        self._cut_off = False
        self._reading: asyncio.Task[None] | None = None  # the session's task while it waits for the client
        self._chunks = False

    async def run(self) -> None:
        """Serves the client until either side ends the session."""
        log.info("session started session=%d user=%s host=%s", self.id, self.user, self.host)
        writer = asyncio.create_task(self._write())
        user: UserSession | None = None
        reason = "closed by the client"
        try:
            user = await self._server.call(self._server.datastore.open, self.user, self.id)
            await self._greet()
            while not self._closing and (message := await self._next_message()) is not None:
                await self._handle(user, message)
        except SessionOver as over:
            reason = str(over)
        except (asyncssh.Error, OSError) as error:
            reason = f"connection lost: {error}"
        finally:
            self.close()
            await self._release(user)
            await _finish(writer, 0 if self._cut_off else _FLUSH_SECONDS)
            self._stdout.channel.close()
            self.ended.set()
            log.info("session ended session=%d user=%s reason=%s", self.id, self.user, reason)

    def end(self) -> None:
        """Cuts the session off: an operation under way is finished, nothing further is read or sent."""
        self._cut_off = True
        self.close()
        self._stdout.channel.abort()
        # The client may be past answering, and the channel closes only once it has.
        if self._reading is not None:
            self._reading.cancel()

    def notify(self, event_time: str, event: bytes) -> None:
        """Queues a notification. On the loop."""
        message = netconf.build_notification(event_time, event)
        self.out_notifications += 1
        if self._held is not None:
            self._held.append(message)
        else:
            self._send(message)

    async def _greet(self) -> None:
        self._send(netconf.build_hello(Hello(self._server.datastore.capabilities, self.id)))
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message = await self._next_message()
            hello = netconf.parse_hello(message or b"")
        except TimeoutError as error:
            raise SessionOver("no hello in time") from error
        except MalformedMessage as error:
            raise SessionOver(f"bad hello: {error}") from error
        if hello.session_id is not None:
            raise SessionOver("a client's hello must not hold a session-id")
        if netconf.BASE_1_1 in hello.capabilities:
            self._framing.use_chunks()
            self._chunks = True
        elif netconf.BASE_1_0 not in hello.capabilities:
            raise SessionOver("no common version of NETCONF")

    async def _next_message(self) -> bytes | None:
        try:
            while (message := self._framing.next_message()) is None:
                data = await self._read()
                if not data:
                    self._framing.receive_eof()
                    return self._framing.next_message()
                self._framing.receive(data)
            return message
        except FramingError as error:
            self._malformed(str(error))
            raise SessionOver(f"bad framing: {error}") from error

    async def _read(self) -> bytes:
        self._reading = asyncio.current_task()
        try:
            return await self._stdin.read(_READ)
        except asyncio.CancelledError:
            if self._cut_off and self._reading is not None and self._reading.uncancel() == 0:
                raise SessionOver("ended by the server") from None
            raise
        finally:
            self._reading = None

    async def _handle(self, user: UserSession, message: bytes) -> None:
        reply, then = await self._server.call(self._answer, user, message)
        if reply:
            self._send(reply)
        if self.subscription is not None and self._held is not None:
            held, self._held = self._held, None
            for one in held:
                self._send(one)
        if then is not None:
            then()
        # A client that asks more than it reads waits for its own replies; only notifications can overflow.
        while self._queued > MAX_QUEUED_BYTES // 2 and not self._closing:
            self._sent.clear()
            await self._sent.wait()

    def _answer(self, user: UserSession, message: bytes) -> tuple[bytes, Callable[[], None] | None]:
        """The reply, and what is to be done on the loop once it is on its way. In a worker thread."""
        attributes = Attributes()
        try:
            rpc = netconf.parse_rpc(message)
            attributes = rpc.attributes
            self.in_rpcs += 1
            call = Call(self._server, self, user, rpc.operation)
            return netconf.build_reply(attributes, perform(call)), call.then
        except RpcFailed as failed:
            self.out_rpc_errors += 1
            return netconf.build_error_reply(failed.attributes or attributes, failed.errors), None
        except MalformedMessage as error:
            self.in_bad_rpcs += 1
            if self._chunks:
                return self._malformed_reply(str(error)), None
            # The error-tag is unknown to a client of base:1.0 (RFC 6241 appendix A): the session ends instead.
            return b"", self.close
        except Exception:
            log.exception("operation failed session=%d", self.id)
            internal = RpcError("operation-failed", "internal error of the server")
            return netconf.build_error_reply(attributes, [internal]), None

    def close(self) -> None:
        """Ends the session once what is queued has been sent."""
        self._closing = True
        self._wake.set()
        self._sent.set()

    def _malformed(self, text: str) -> None:
        """Tells a client of base:1.1."""
        self.in_bad_rpcs += 1
        if self._chunks:
            self._send(self._malformed_reply(text))

    @staticmethod
    def _malformed_reply(text: str) -> bytes:
        return netconf.build_error_reply(Attributes(), [RpcError("malformed-message", text, "rpc")])

    def _send(self, message: bytes) -> None:
        framed = self._framing.frame(message)
        if self._queued and self._queued + len(framed) > MAX_QUEUED_BYTES:
            log.warning("client does not read session=%d user=%s queued=%d", self.id, self.user, self._queued)
            self.end()
            return
        self._queue.append(framed)
        self._queued += len(framed)
        self._wake.set()

    async def _write(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            part = self._queue.popleft()
            try:
                self._stdout.write(part)
                await self._stdout.drain()
            except (asyncssh.Error, OSError):
                self._closing = True
            self._queued -= len(part)
            self._sent.set()

    async def _release(self, user: UserSession | None) -> None:
        """Ends subscription and datastore session; locks go with it."""
        if user is not None:
            await self._server.call(self._stop, user)
        self._server.forget(self)

    def _stop(self, user: UserSession) -> None:
        if self.subscription is not None:
            self.subscription.stop()
        user.stop()


async def _finish(writer: asyncio.Task[None], seconds: float) -> None:
    """Lets the writer send what is queued, within reason."""
    done, _ = await asyncio.wait([writer], timeout=seconds)
    if not done:
        writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
