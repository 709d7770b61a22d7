"""NETCONF sessions: ncclient's operations, capabilities and replies over connections of ours, on the one event loop.

ncclient's own transports keep two threads a session and answer on a 0.1 s tick. Its `Session` is documented as the base for
other transports, so ours starts no thread: `send` writes to a channel of SSH or TLS (`wire.py`), every complete message goes
to the session's listeners, and an operation is awaited.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lxml import etree
from ncclient.devices.default import DefaultDeviceHandler
from ncclient.operations.edit import DiscardChanges, EditConfig
from ncclient.operations.lock import Lock, Unlock
from ncclient.operations.retrieve import Get, GetConfig
from ncclient.operations.rpc import RPC, RaiseMode
from ncclient.operations.subscribe import CreateSubscription
from ncclient.transport.session import HelloHandler, Session, SessionListener
from ncclient.xml_ import new_ele

from qswitch.protocol.netconf import Framing, NetconfError, parse_notification

from ..config import Timeouts
from ..errors import BadReply, ControllerError, NodeRefused, NodeTimedOut, NodeUnreachable
from .wire import Attempt, Channel, Connection

log = logging.getLogger(__name__)

HELLO = "NETCONF hello"
BASE_10 = "urn:ietf:params:netconf:base:1.0"
BASE_11 = "urn:ietf:params:netconf:base:1.1"
NotificationHandler = Callable[[etree._Element], None]
LostHandler = Callable[[ControllerError], None]


class _Handler(DefaultDeviceHandler):  # type: ignore[misc]
    """ncclient's default, which claims no more than what this client can do."""

    _BASE_CAPABILITIES = [BASE_10, BASE_11]

    def handle_raw_dispatch(self, raw: str) -> str:
        """Called for what is no XML; ncclient would only log it, and somebody would wait for an answer."""
        raise NetconfError(f"no well-formed XML: {raw[:40]!r}")


class _CloseSession(RPC):  # type: ignore[misc]
    """`close-session`; ncclient's own closes the transport before the answer is there."""

    def request(self) -> Any:
        return self._request(new_ele("close-session"))


class _Arrival:
    """Stands where ncclient has a threading.Event: set when the reply is there, or an error instead of it."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def is_set(self) -> bool:
        return self.future.done()


class _Transport(Session):  # type: ignore[misc]
    """ncclient's session without its thread."""

    def __init__(self, handler: _Handler) -> None:
        super().__init__(handler.get_capabilities())
        self._device_handler = handler
        self.can_pipeline = True
        self.framing = Framing()
        self.channel: Channel | None = None
        self.lost: ControllerError | None = None

    def opened(self, channel: Channel) -> None:
        self.channel, self._connected = channel, True

    def send(self, message: str) -> None:
        if self.channel is None or self.lost is not None:
            raise self.lost or NodeUnreachable("", "no session")
        with suppress(OSError):  # it is closing: who waits gets what is still to come of it, and why it ended
            self.channel.write(self.framing.frame(message.encode()))

    def receive(self, data: bytes) -> None:
        """Takes bytes of the node and passes complete messages on. Raises FramingError or BadReply."""
        self.framing.receive(data)
        while (message := self.framing.next_message()) is not None:
            if b"<!DOCTYPE" in message or b"<!ENTITY" in message:
                raise NetconfError("a document type declaration is not allowed in NETCONF (RFC 6241 clause 3)")
            self._dispatch_message(message.decode())

    def fail(self, error: ControllerError) -> None:
        """The session is over: every waiting operation gets the error. Only the first call counts."""
        if self.lost is None:
            self.lost, self._connected = error, False
            self._dispatch_error(error)

    def greeted(self, server_capabilities: Any) -> None:
        """Both hellos are known: chunks from here on when both sides can (RFC 6242 clause 4.1)."""
        self._server_capabilities = server_capabilities
        if BASE_11 in server_capabilities:
            self.framing.use_chunks()


class _Notifications(SessionListener):  # type: ignore[misc]
    """Passes notifications on, and minds what is no message of a server at all."""

    def __init__(self, handler: NotificationHandler) -> None:
        self._handler = handler

    def callback(self, root: tuple[str, Any], raw: str) -> None:
        match etree.QName(root[0]).localname:
            case "notification":
                _time, event = parse_notification(raw.encode())
                self._handler(event)
            case "rpc-reply" | "hello":
                pass
            case other:
                raise NetconfError(f"'{other}' is no message of a NETCONF server")

    def errback(self, ex: Exception) -> None:
        pass


class _Pump:
    """Carries bytes between the channel of a connection and the session: is the connection's `Receiver`."""

    def __init__(self, node: str, transport: _Transport, on_lost: LostHandler) -> None:
        self._node, self._transport, self._on_lost = node, transport, on_lost

    def opened(self, channel: Channel) -> None:
        self._transport.opened(channel)

    def received(self, data: bytes) -> None:
        if self._transport.lost is not None:
            return
        try:
            self._transport.receive(data)
        except Exception as error:  # whatever it is, it came from bytes of the node, and must not end the loop
            log.warning("session ended by a bad message node=%s problem=%s", self._node, error)
            self._end(BadReply(self._node, f"bad message: {error}"))

    def ended(self, problem: str, advice: str = "") -> None:
        self._end(NodeUnreachable(self._node, problem, advice))

    def _end(self, error: ControllerError) -> None:
        if self._transport.lost is None:
            self._transport.fail(error)
            self._on_lost(error)
            if self._transport.channel is not None:
                self._transport.channel.abort()


class NetconfSession:
    """One session with one node. Operations raise NodeRefused (rpc-error), NodeTimedOut, NodeUnreachable, BadReply.

    An operation that timed out ends the session, since nobody can say what the node did: reconnect and read.
    """

    def __init__(self, node: str, connection: Connection, timeouts: Timeouts) -> None:
        self._node, self._connection, self._timeouts = node, connection, timeouts
        self._handler = _Handler({"name": "default"})
        self._transport = _Transport(self._handler)
        self._on_lost: LostHandler = lambda _error: None
        self.session_id = ""

    @classmethod
    async def open(
        cls,
        node: str,
        connection: Connection,
        timeouts: Timeouts,
        on_notification: NotificationHandler,
        on_lost: LostHandler,
        attempt: Attempt | None = None,
    ) -> "NetconfSession":
        """Starts a session on an authenticated connection and exchanges hellos. Raises like every operation.

        `attempt` goes through the steps.
        """
        session = cls(node, connection, timeouts)
        session._on_lost = on_lost
        session._transport.add_listener(_Notifications(on_notification))
        try:
            async with asyncio.timeout(timeouts.connect):
                await session._greet(attempt or Attempt())
        except TimeoutError as error:
            session._end()
            raise NodeTimedOut(node, HELLO, timeouts.connect) from error
        except BaseException:
            session._end()  # the connection may have others, and lives on
            raise
        return session

    async def _greet(self, attempt: Attempt) -> None:
        arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def hello(session_id: str, capabilities: Any) -> None:
            # Before the next byte is looked at: what follows the hello is framed anew.
            self._transport.greeted(capabilities)
            self.session_id = session_id
            if not arrived.done():
                arrived.set_result(None)

        def failed(error: Exception) -> None:
            if not arrived.done():
                arrived.set_exception(error)

        listener = HelloHandler(hello, failed)
        self._transport.add_listener(listener)
        channel = await self._connection.carry(_Pump(self._node, self._transport, self._lost), attempt)
        attempt.begin(HELLO)
        # Our own hello is framed with the old marker whichever hello is first (RFC 6242 clause 4.1).
        greeting = HelloHandler.build(self._transport.client_capabilities, self._handler)
        with suppress(OSError):  # as in `send`
            channel.write(Framing().frame(greeting.encode()))
        await arrived
        attempt.end()
        self._transport.remove_listener(listener)
        if not any(one in self.capabilities for one in (BASE_10, BASE_11)):
            # RFC 6241 clause 8.1: a session without a version that both sides speak must not go on.
            offered = ", ".join(one for one in self.capabilities if ":netconf:base:" in one) or "none at all"
            raise NodeUnreachable(
                self._node,
                f"no NETCONF version in common: it offers {offered}; the controller speaks {BASE_10} and {BASE_11}",
                "the node's NETCONF server must speak one of these two: look for a newer version of it",
            )

    def _lost(self, error: ControllerError) -> None:
        self._on_lost(error)

    @property
    def capabilities(self) -> Any:
        """ncclient's Capabilities of the node: `":candidate" in session.capabilities`."""
        return self._transport.server_capabilities

    async def get(self, *filters_xml: str) -> etree._Element:
        """The `data` element of running configuration and state (RFC 6241 clause 7.7) below subtree filters."""
        return (await self._call(Get, filter=list(filters_xml))).data_ele  # type: ignore[no-any-return]

    async def get_config(self, filter_xml: str, source: str = "running") -> etree._Element:
        """The `data` element of a configuration datastore below a subtree filter."""
        return (await self._call(GetConfig, source=source, filter=("subtree", filter_xml))).data_ele  # type: ignore[no-any-return]

    async def edit_config(self, config: etree._Element, target: str = "running", test_only: bool = False) -> None:
        """Sends one edit, all of it or nothing where the node can; `test_only` (needs :validate:1.1) changes nothing."""
        option = "rollback-on-error" if ":rollback-on-error" in self.capabilities else None
        test = "test-only" if test_only else None
        await self._call(EditConfig, config=config, target=target, test_option=test, error_option=option)

    async def discard_changes(self) -> None:
        await self._call(DiscardChanges)

    async def lock(self, target: str = "running") -> None:
        await self._call(Lock, target=target)

    async def unlock(self, target: str = "running") -> None:
        await self._call(Unlock, target=target)

    async def create_subscription(self, start_time: str | None = None, namespace: str | None = None) -> None:
        """Notifications of the default stream from now on, or from a time of the past on (RFC 5277).

        Of one module, where the node can tell: a server may compute others only for those who hear them.
        """
        only = ("xpath", ({"n": namespace}, "/n:*")) if namespace and ":xpath" in self.capabilities else None
        await self._call(CreateSubscription, filter=only, start_time=start_time)

    async def _call(self, operation: type[Any], **arguments: Any) -> Any:
        try:
            rpc = operation(
                self._transport,
                device_handler=self._handler,
                async_mode=True,
                timeout=self._timeouts.rpc,
                raise_mode=RaiseMode.NONE,
                huge_tree=True,
            )
            arrival = rpc._event = _Arrival()
            rpc.request(**arguments)
            async with asyncio.timeout(self._timeouts.rpc):
                await arrival.future
        except TimeoutError as error:
            raise self._timed_out(operation.__name__) from error
        except ControllerError:
            raise
        except Exception as error:  # ncclient's: a capability that is missing, arguments it refuses
            raise BadReply(self._node, f"{operation.__name__}: {error}") from error
        if rpc.error is not None:
            raise self._transport.lost or NodeUnreachable(self._node, str(rpc.error)) from rpc.error
        return self._checked(operation.__name__, rpc.reply)

    def _timed_out(self, operation: str) -> NodeTimedOut:
        error = NodeTimedOut(self._node, operation, self._timeouts.rpc)
        if self._transport.lost is None:
            self._transport.fail(error)
            self._on_lost(error)
        return error

    def _checked(self, operation: str, reply: Any) -> Any:
        try:
            errors = reply.errors
        except Exception as error:
            raise BadReply(self._node, f"reply to {operation}: {error}") from error
        serious = [one for one in errors if one.severity != "warning"]
        if serious:
            raise NodeRefused(self._node, serious[0].tag or "operation-failed", "; ".join(_text(one) for one in serious))
        return reply

    async def close(self) -> None:
        """Says good-bye when the node still listens. Never raises."""
        self._on_lost = lambda _error: None
        if self._transport.lost is None:
            try:
                async with asyncio.timeout(1):
                    await self._call(_CloseSession)
            except (ControllerError, TimeoutError) as error:
                log.debug("session closed without an answer node=%s problem=%s", self._node, error)
        self._end()

    def _end(self) -> None:
        self._on_lost = lambda _error: None
        self._transport.fail(NodeUnreachable(self._node, "the session was closed"))
        if self._transport.channel is not None:
            self._transport.channel.abort()


def _text(error: Any) -> str:
    place = f" at {error.path}" if error.path else ""
    return (error.message or error.tag or "no reason given").strip() + place
