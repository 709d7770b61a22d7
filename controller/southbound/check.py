"""Checks one node: connects anew the configured way, and reports what was offered, agreed, allowed, and is wrong.

Nothing at the node is changed. A node that calls is not dialled: the check uses the connection that is there, with sessions
of its own where that carries several. What fails ends the check at that step, with what was learned until then.
"""

import asyncio
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lxml import etree

from qswitch.protocol.netconf import MONITORING, NOTIFICATION

from ..checks import Finding, Level, NodeCheck, RightCheck, RoundTrip, Step
from ..config import Timeouts
from ..errors import ControllerError, NodeRefused, NodeTimedOut, NodeUnreachable
from ..model import Endpoint
from . import capabilities, clock, dialing, modules, rights, ssh, tls
from .calls import Refusal
from .inventory import AGENT_DOWN, ManagedNode
from .nodedata import FILTER, NODE, parse_node
from .session import HELLO, NetconfSession
from .wire import Attempt, Connection, words

ROUND_TRIPS = 10
REPLAY_SECONDS = 1.0  # how long a node may take to say that it has replayed what is at most some seconds old
EXPIRES_SOON = timedelta(days=14)

_SMALL = f'<qkd_node xmlns="{NODE}"><qkdn_id/></qkd_node>'
_OTHER_SERVICE = "the port may be another service's; or the node is overloaded"
_ADVICE = {
    dialing.TCP: "the node is off, or something on the way drops what is sent: see host, port and firewalls",
    ssh.HANDSHAKE: _OTHER_SERVICE,
    tls.HANDSHAKE: _OTHER_SERVICE,
    ssh.LOGIN: "the node is overloaded, or cannot look its users up: see the log of its NETCONF server",
    HELLO: "the transport works, the NETCONF server behind it does not answer: see its log, and sysrepo's",
}
_SLOW = "the node's datastore is slow or stuck: see the log of its NETCONF server, and sysrepo's"


class Check:
    """One check; `run` once."""

    def __init__(self, node: ManagedNode, timeouts: Timeouts, quiet: asyncio.Lock, refusals: Iterable[Refusal] = ()) -> None:
        """While `quiet` is held, the controller edits no node. `refusals` are of callers that were let in by no node."""
        self._node, self._config, self._timeouts = node, node.config, timeouts
        self._quiet, self._refusals = quiet, list(refusals)
        self._attempt = Attempt()
        self._own: list[Connection] = []
        self._sessions: list[NetconfSession] = []
        self._findings: list[Finding] = []
        self._sightings: list[clock.Sighting] = []
        where = node.record.netconf or Endpoint("", 0)
        self._report = NodeCheck(
            node=self._config.name,
            well=False,
            host=where.host,
            port=where.port,
            connect="call-home" if self._config.calls else "dial",
            transport="tls" if self._config.tls else "ssh",
            way="a new connection, and sessions of its own",
        )

    async def run(self) -> NodeCheck:
        """Never raises a ControllerError: what goes wrong is a finding."""
        try:
            session = await self._session(await self._connection())
            await self._examine(session)
        except ControllerError as error:
            await self._failed(error)
        finally:
            for session in self._sessions:
                await session.close()
            for connection in self._own:
                connection.abort()
        return self._finished()

    # The way there ---------------------------------------------------------------------------------------------------

    async def _connection(self) -> Connection:
        if not self._config.calls:
            connection = await dialing.connect(self._config, self._timeouts, self._attempt)
            self._own.append(connection)
            return connection
        if self._node.connection is None:
            raise NodeUnreachable(
                self._config.name, self._node.record.problem or "it is between two calls", self._strangers()
            )
        connection = self._node.connection
        self._attempt.ssh, self._attempt.tls = connection.attempt.ssh, connection.attempt.tls
        own = "new sessions on it" if connection.shares else "and its session, since TLS carries one only"
        self._report = replace(self._report, way=f"the connection of the node's last call, {own}")
        return connection

    def _strangers(self) -> str:
        """What to do about a node that does not call; those who called and were refused may be it."""
        last = [one for one in self._refusals if one.transport == self._report.transport][-3:]
        called = "; ".join(f"{one.host} called at {one.time:%H:%M:%S} UTC and was refused: {one.problem}" for one in last)
        return "see that the node's call-home names this controller, its port included" + (f". {called}" if called else "")

    async def _session(self, connection: Connection) -> NetconfSession:
        if not connection.shares and connection not in self._own:
            return self._node.ready_session()
        return await self._open(connection, _Heard(), self._attempt)

    async def _open(self, connection: Connection, heard: "_Heard", attempt: Attempt | None = None) -> NetconfSession:
        session = await NetconfSession.open(
            self._config.name, connection, self._timeouts, heard.event, lambda _error: None, attempt
        )
        self._sessions.append(session)
        return session

    # The examination -------------------------------------------------------------------------------------------------

    async def _examine(self, session: NetconfSession) -> None:
        offered = list(session.capabilities)
        known, others, missed = capabilities.check(offered)
        self._findings += missed
        self._report = replace(
            self._report,
            netconf=capabilities.version(offered),
            session_id=session.session_id,
            capabilities=known,
            other_capabilities=others,
        )
        # The node may deny any of these to this user; what else it says goes on.
        for part in (self._round_trip, self._modules, self._login_time):
            try:
                await part(session)
            except NodeRefused as error:
                self._add(Level.NOTE, "rights", f"{error.problem} ({error.tag})", "see the user's rules in ietf-netconf-acm")
        await self._rights(session)

    async def _round_trip(self, session: NetconfSession) -> None:
        seconds = []
        for _ in range(ROUND_TRIPS):
            begin = time.perf_counter()
            await session.get_config(_SMALL)
            seconds.append(time.perf_counter() - begin)
        self._report = replace(self._report, round_trip=RoundTrip(statistics.median(seconds), max(seconds), ROUND_TRIPS))

    async def _modules(self, session: NetconfSession) -> None:
        found = modules.parse(await session.get(*modules.FILTERS), session.capabilities)
        if not found:
            self._add(Level.NOTE, "modules", "this user sees no list of modules: what the node has is unknown")
            return
        checks, findings = modules.check(found)
        self._findings += findings
        self._report = replace(self._report, modules=checks, other_modules=len(found.keys() - {one.name for one in checks}))

    async def _login_time(self, session: NetconfSession) -> None:
        """The node's monitoring says when it began each session, this one too."""
        data = await session.get(
            f'<netconf-state xmlns="{MONITORING}"><sessions><session><session-id>{session.session_id}</session-id>'
            "<login-time/></session></sessions></netconf-state>"
        )
        written = data.findtext(f".//{{{MONITORING}}}login-time")
        if written:
            # A session of the check's own began while the check connected, another one while its connection came about.
            connection = self._node.connection
            attempt = self._attempt if self._sessions or connection is None else connection.attempt
            self._sightings.append(clock.Sighting(written, attempt.began, attempt.ended, "login-time of the session"))

    async def _rights(self, session: NetconfSession) -> None:
        """In this order: what was read is needed for what is edited."""
        read, node = await rights.reading(session)
        edit = RightCheck("edit", None, "not tried: the node's id is unknown")
        found = [
            read,
            edit if node is None else await rights.editing(session, node),
            await rights.locking(session, self._quiet),
            await self._subscribing(session),
            rights.NOT_KILLED,
        ]
        for one in found:
            if one.allowed is False and one.name != "lock":  # which the controller does without
                advice = "give the user the role `controller`, or a rule in ietf-netconf-acm that permits it"
                self._add(Level.WRONG, "rights", f"this user may not {one.name}: {one.how}", advice)
        self._report = replace(self._report, rights=tuple(found))
        if read.allowed:
            await self._agent(session)

    async def _agent(self, session: NetconfSession) -> None:
        state = parse_node(await session.get(FILTER))
        if state is None or state.status is None:
            self._add(Level.WRONG, "agent", AGENT_DOWN, "start qkd-agent at the node, or see its log")

    async def _subscribing(self, session: NetconfSession) -> RightCheck:
        if ":notification" not in session.capabilities:
            return RightCheck("subscribe", None, "not tried: the node has no notifications")
        if not self._sessions:
            return RightCheck("subscribe", self._node.subscribed or None, "as the session of the last call has done")
        heard = _Heard()
        try:
            ears = await self._open(await self._second(), heard)
        except ControllerError as error:
            return RightCheck("subscribe", None, f"not tried: the node takes no second session: {words(error)}")
        start = self._sightings[0].written if self._sightings else None
        asked = time.time()
        right = await rights.subscribing(ears, start)
        if right.allowed and start is not None:
            await heard.replayed(asked, self._sightings)
        return right

    async def _second(self) -> Connection:
        """A connection for one more session."""
        assert self._node.connection is not None or self._own
        connection = self._own[0] if self._own else self._node.connection
        assert connection is not None
        if not connection.shares:
            connection = await dialing.connect(self._config, self._timeouts)
            self._own.append(connection)
        return connection

    # The report ------------------------------------------------------------------------------------------------------

    def _add(self, level: Level, about: str, text: str, advice: str = "") -> None:
        self._findings.append(Finding(level, about, text, advice))

    async def _failed(self, error: ControllerError) -> None:
        about = self._attempt.step or "session"
        if about == tls.HANDSHAKE and self._attempt.tls is None and not self._config.calls:
            self._attempt.tls = await tls.look(self._config.netconf, self._timeouts)
        advice = error.advice if isinstance(error, NodeUnreachable) else ""
        if isinstance(error, NodeTimedOut):
            advice = _ADVICE.get(error.operation, _SLOW)
        self._add(Level.WRONG, about, words(error), advice)

    def _finished(self) -> NodeCheck:
        estimate = clock.estimate(self._sightings)
        if (off := clock.finding(estimate)) is not None:
            self._findings.append(off)
        self._expiry()
        return replace(
            self._report,
            well=all(one.level is not Level.WRONG for one in self._findings),
            steps=tuple(Step(*one) for one in self._attempt.steps),
            ssh=self._attempt.ssh,
            tls=self._attempt.tls,
            clock=estimate,
            findings=tuple(sorted(self._findings, key=lambda one: one.level is not Level.WRONG)),
        )

    def _expiry(self) -> None:
        until = self._attempt.tls.not_after if self._attempt.tls else None
        if until is not None and datetime.fromisoformat(until) - datetime.now(UTC) < EXPIRES_SOON:
            self._add(
                Level.NOTE, "certificate", f"the node's certificate ends at {until}", "give the node a new one in time"
            )


class _Heard:
    """What a session of the check is told: only when and what of it count."""

    def __init__(self) -> None:
        self._complete: asyncio.Future[tuple[str, float]] = asyncio.get_running_loop().create_future()

    def event(self, event: etree._Element) -> None:
        parent = event.getparent()
        written = parent.findtext(f"{{{NOTIFICATION}}}eventTime") if parent is not None else None
        if etree.QName(event).localname == "replayComplete" and written and not self._complete.done():
            self._complete.set_result((written.strip(), time.time()))

    async def replayed(self, asked: float, sightings: list[clock.Sighting]) -> None:
        """Waits a moment for the end of the replay, and notes when the node says it was."""
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                written, arrived = await self._complete
        except TimeoutError:
            return
        sightings.append(clock.Sighting(written, asked, arrived, "time of a notification that the check caused"))
