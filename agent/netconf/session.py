"""One NETCONF session (RFC 6241) on a stream of any transport: hello, one operation after the other, notifications between.

Operations block and run in worker threads, one at a time per session, so that replies keep the order of requests. What
goes to the client passes one queue with a limit: a client that does not read loses its session, and nobody waits for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from qswitch.protocol import netconf
from qswitch.protocol.netconf import Attributes, Framing, FramingError, Hello, MalformedMessage, RpcError, RpcFailed

from .datastore import UserSession
from .operations import Call, perform
from .subscriptions import Subscription

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)

# A client that reads nothing may leave this much behind before it is cut off.
MAX_QUEUED_BYTES = 16 * 1024 * 1024
# What ietf-netconf-monitoring counts (RFC 6022 common-counters), as attributes of a session.
COUNTED = ("in_rpcs", "in_bad_rpcs", "out_rpc_errors", "out_notifications")
_FLUSH_SECONDS = 5.0  # for a client that is slow to take the last replies


class Stream(Protocol):
    """What a transport hands to a session: bytes to and from a peer whose identity it has checked."""

    transport: str  # identity of ietf-netconf-monitoring: netconf-ssh or netconf-tls
    user: str
    host: str
    idle_seconds: float | None  # how long a session may be silent (0: for ever); None: as the server's limits say

    async def read(self) -> bytes:
        """The next bytes; none at the end. Raises OSError when the connection is lost."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Until the peer has taken enough. Raises OSError when the connection is lost."""

    async def close(self) -> None:
        """Sends what is left and ends; never raises."""

    def abort(self) -> None: ...


class SessionOver(Exception):
    """The session cannot go on: a termination-reason (RFC 6470) and text for the log."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Session:
    """A session from its stream's start to its end. Made and run on the loop."""

    def __init__(self, server: "Server", session_id: int, stream: Stream) -> None:
        self.id, self.user, self.host, self.transport = session_id, stream.user, stream.host, stream.transport
        self.idle_seconds = stream.idle_seconds
        self.login_time = datetime.now(UTC)
        self.active = asyncio.get_running_loop().time()  # when the client last said something
        self.in_rpcs = self.in_bad_rpcs = self.out_rpc_errors = self.out_notifications = 0
        self.reason = ""  # of its end, a termination-reason (RFC 6470)
        self.ended = asyncio.Event()  # everything released
        self.datastores: UserSession | None = None
        self.subscription: Subscription | None = None
        self._server = server
        self._stream = stream
        self._turn = server.turn(self.user)
        self._framing = Framing(server.max_message)
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()  # for the writer: something to send, or the end
        self._sent = asyncio.Event()  # by the writer: something was sent, or cannot be
        self._closing = False
        self._cut_off: SessionOver | None = None
        self._killed_by: int | None = None
        self._reading: asyncio.Task[None] | None = None  # the session's task while it waits for the client
        self._chunks = False

    async def run(self) -> None:
        """Serves the client until either side ends the session."""
        log.info("session started session=%d user=%s host=%s", self.id, self.user, self.host)
        writer = asyncio.create_task(self._write())
        greeted, over = False, SessionOver("closed", "closed by the client")
        try:
            user = self.datastores = await self._server.call(self._server.datastore.open, self.user, self.id)
            await self._greet()
            greeted = True
            self._server.announcements.session_started(self)
            while not self._closing:
                message = await self._next_message()
                if message is None:
                    raise SessionOver("dropped", "the client is gone")
                await self._handle(user, message)
        except SessionOver as caught:
            over = caught
        except OSError as error:
            over = SessionOver("dropped", f"connection lost: {error}")
        finally:
            over = self._cut_off or over
            self.reason = over.reason
            self.close()
            await self._release()
            await _finish(writer, 0 if self._cut_off else _FLUSH_SECONDS)
            await self._stream.close()
            self.ended.set()
            log.info("session ended session=%d user=%s reason=%s", self.id, self.user, over)
            if greeted or over.reason == "bad-hello":
                self._server.announcements.session_ended(self, over.reason, self._killed_by)

    def end(self, reason: str = "other", text: str = "ended by the server", killed_by: int | None = None) -> None:
        """Cuts the session off: an operation under way is finished, nothing further is read or sent."""
        self._cut_off = self._cut_off or SessionOver(reason, text)
        self._killed_by = killed_by
        self.close()
        self._stream.abort()
        # The client may be past answering, and the channel closes only once it has.
        if self._reading is not None:
            self._reading.cancel()

    def idle(self, now: float) -> float:
        """Seconds without a word of the client; a session with a subscription, or in an operation, is never idle."""
        return now - self.active if self.subscription is None and self._reading is not None else 0.0

    def unsubscribed(self) -> None:
        """The subscription has come to its end; another may be made. On the loop."""
        self.subscription = None

    def notify(self, event_time: str, event: bytes) -> None:
        """Queues a notification. On the loop."""
        self.out_notifications += 1
        self._send(netconf.build_notification(event_time, event))

    async def room(self) -> None:
        """Waits until the client has taken enough of what it was sent."""
        while self._queued > MAX_QUEUED_BYTES // 2 and not self._closing:
            self._sent.clear()
            await self._sent.wait()

    async def _greet(self) -> None:
        self._send(netconf.build_hello(Hello(self._server.datastore.schema.capabilities, self.id)))
        try:
            async with asyncio.timeout(self._server.limits.hello_seconds):
                message = await self._next_message()
            hello = netconf.parse_hello(message or b"")
        except TimeoutError as error:
            raise SessionOver("timeout", "no hello in time") from error
        except MalformedMessage as error:
            raise SessionOver("bad-hello", f"bad hello: {error}") from error
        if hello.session_id is not None:
            raise SessionOver("bad-hello", "a client's hello must not hold a session-id")
        versions = {one.partition("?")[0] for one in hello.capabilities}
        if netconf.BASE_1_1 in versions:
            self._framing.use_chunks()
            self._chunks = True
        elif netconf.BASE_1_0 not in versions:
            raise SessionOver("bad-hello", "no common version of NETCONF")

    async def _next_message(self) -> bytes | None:
        try:
            while (message := self._framing.next_message()) is None:
                data = await self._read()
                if not data:
                    self._framing.receive_eof()
                    return self._framing.next_message()
                self._framing.receive(data)
                await asyncio.sleep(0)  # however much a client sends without a pause, others have their turn
            self.active = asyncio.get_running_loop().time()
            return message
        except FramingError as error:
            self._malformed(str(error))
            raise SessionOver("other", f"bad framing: {error}") from error

    async def _read(self) -> bytes:
        self._reading = asyncio.current_task()
        try:
            return await self._stream.read()
        except asyncio.CancelledError:
            if self._cut_off is not None and self._reading is not None and self._reading.uncancel() == 0:
                raise self._cut_off from None
            raise
        finally:
            self._reading = None

    async def _handle(self, user: UserSession, message: bytes) -> None:
        async with self._turn:
            if self._cut_off is not None:
                raise self._cut_off
            reply, then = await self._server.call(self._answer, user, message)
        if reply:
            self._send(reply)
        if then is not None:
            then()
        # A client that asks more than it reads waits for its own replies; only notifications can overflow.
        await self.room()

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
            self.in_bad_rpcs += failed.attributes is not None  # it was no correct rpc, else they are known
            return self._refusal(failed.attributes or attributes, failed.errors), None
        except MalformedMessage as error:
            self.in_bad_rpcs += 1
            if self._chunks:
                return self._malformed_reply(str(error)), None
            # The error-tag is unknown to a client of base:1.0 (RFC 6241 appendix A): the session ends instead.
            return b"", self.close
        except Exception:
            log.exception("operation failed session=%d", self.id)
            internal = RpcError("operation-failed", "internal error of the server")
            return self._refusal(attributes, [internal]), None

    def _refusal(self, attributes: Attributes, errors: Iterable[RpcError]) -> bytes:
        self.out_rpc_errors += 1
        return netconf.build_error_reply(attributes, errors)

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

    def _malformed_reply(self, text: str) -> bytes:
        return self._refusal(Attributes(), [RpcError("malformed-message", text, "rpc")])

    def _send(self, message: bytes) -> None:
        framed = self._framing.frame(message)
        if self._queued and self._queued + len(framed) > MAX_QUEUED_BYTES:
            log.warning("client does not read session=%d user=%s queued=%d", self.id, self.user, self._queued)
            self.end("dropped", "the client does not read")
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
                self._stream.write(part)
                await self._stream.drain()
            except OSError:
                self._closing = True
            self._queued -= len(part)
            self._sent.set()

    async def _release(self) -> None:
        """Ends subscription and datastore session; locks go with it."""
        user, self.datastores = self.datastores, None
        try:
            if user is not None:
                await self._server.release(self._stop, user)
        except Exception:
            log.exception("session not released cleanly session=%d", self.id)
        await self._server.forget(self)

    def _stop(self, user: UserSession) -> None:
        try:
            if self.subscription is not None:
                self.subscription.stop()
        finally:
            user.stop()


async def _finish(writer: asyncio.Task[None], seconds: float) -> None:
    """Lets the writer send what is queued, within reason."""
    done, _ = await asyncio.wait([writer], timeout=seconds)
    if not done:
        writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
