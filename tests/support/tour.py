"""What a NETCONF client does on a node, told once for all clients: a story of steps, and what each must show."""

import contextlib
import os
import pty
import re
import select
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from netconf_front import NODE, QKD, Front

from qswitch.protocol.netconf import BASE, MONITORING

LINK = str(uuid.UUID(int=0x77))
TYPES = "urn:etsi:qkd:yang:etsi-qkd-node-types"
SECONDS = 20.0  # for anything that a client waits for
OFFERED = (
    "urn:ietf:params:netconf:base:1.1",
    *(f"urn:ietf:params:netconf:capability:{one}" for one in ("candidate:1.0", "confirmed-commit:1.1", "validate:1.1")),
    *(f"urn:ietf:params:netconf:capability:{one}" for one in ("startup:1.0", "xpath:1.0", "notification:1.0")),
)
FILTER = f'<qkd_node xmlns="{QKD}"><qkd_links/></qkd_node>'
EVENT = f'<sdqkdn_interface_out xmlns="{QKD}"><qkd_interface><qkdi_id>{{}}</qkdi_id></qkd_interface></sdqkdn_interface_out>'


def link(operation: str) -> str:
    """The data of an edit-config that merges or removes one link."""
    return (
        f'<qkd_node xmlns="{QKD}" xmlns:nc="{BASE}"><qkdn_id>{NODE}</qkdn_id>'
        f'<qkd_links><qkd_link nc:operation="{operation}"><qkdl_id>{LINK}</qkdl_id>'
        f'<qkdl_type xmlns:t="{TYPES}">t:VIRT</qkdl_type></qkd_link></qkd_links></qkd_node>'
    )


class Traveller(Protocol):
    """One session of the client on tour. Texts are whatever the client shows of a reply."""

    def capabilities(self) -> str: ...

    def schema(self, name: str, revision: str) -> str: ...

    def edit(self, data: str) -> None:
        """The candidate."""

    def validate(self) -> None:
        """The candidate."""

    def commit(self, confirm_seconds: int = 0) -> None:
        """With seconds: to be confirmed by a second one."""

    def links(self) -> str:
        """Those of running."""

    def lock(self) -> str:
        """Of running; what the client says when it is denied."""

    def unlock(self) -> None: ...

    def subscribe(self, since: str = "") -> None: ...

    def notification(self) -> str:
        """The next, or the next few."""

    def kill(self, session_id: str) -> None: ...


Start = Callable[[], AbstractContextManager[Traveller]]


def tour(start: Start, front: Front) -> None:
    """The whole of it. Another session, ncclient's, is there to be in the way."""
    front.side("follow")
    begun = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    with front.stock(seconds=SECONDS) as other, start() as us:
        see_what_is_offered(us)
        fetch_every_schema(us, other)
        edit_and_fall_back(us)
        edit_and_confirm(us)
        meet_a_lock(us, other)
    with start() as us:
        us.subscribe()
        front.side("notify", EVENT.format(71))
        hear(us, "71")
    with start() as us:
        us.subscribe(begun)
        hear(us, "71", "replayComplete")
    victim = front.stock(seconds=SECONDS)
    with start() as us:
        us.kill(victim.session_id)
    eventually(lambda: not victim.connected)


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def see_what_is_offered(us: Traveller) -> None:
    offered = us.capabilities()
    assert [one for one in (*OFFERED, f"{QKD}?module=etsi-qkd-sdn-node") if one not in offered] == []


def fetch_every_schema(us: Traveller, other: Any) -> None:
    """What RFC 6022 lists, and that is every module of the hello and every module these import."""
    wanted = f'<netconf-state xmlns="{MONITORING}"><schemas/></netconf-state>'
    listed = other.get(("subtree", wanted)).data.findall(".//{*}schema")
    names = {(one.findtext("{*}identifier"), one.findtext("{*}version")) for one in listed}
    hello = [parse_qs(urlsplit(one).query) for one in other.server_capabilities]
    assert {one["module"][0] for one in hello if "module" in one} <= {name for name, _ in names}
    for name, revision in sorted(names):
        assert re.search(rf"\b(sub)?module\s+\"?{name}\"?\s*\{{", us.schema(name, revision)), name


def edit_and_fall_back(us: Traveller) -> None:
    """A confirmed commit that nobody confirms."""
    us.edit(link("merge"))
    us.validate()
    assert LINK not in us.links()
    us.commit(confirm_seconds=1)
    assert LINK in us.links()
    eventually(lambda: LINK not in us.links())


def edit_and_confirm(us: Traveller) -> None:
    us.edit(link("merge"))
    us.commit(confirm_seconds=60)
    us.commit()
    assert LINK in us.links()
    us.edit(link("remove"))
    us.commit()
    assert LINK not in us.links()


def meet_a_lock(us: Traveller, other: Any) -> None:
    other.lock("running")
    denied = us.lock()
    assert "lock-denied" in denied
    assert re.search(rf"session-id>{other.session_id}<", denied), denied
    other.unlock("running")
    assert us.lock() == ""
    us.unlock()


def hear(us: Traveller, *wanted: str) -> None:
    heard, end = "", time.monotonic() + SECONDS
    while any(one not in heard for one in wanted):
        assert time.monotonic() < end, heard
        heard += us.notification()


class Program:
    """A client that is a program of its own, on a terminal where it insists on one."""

    def __init__(self, *command: str, terminal: bool, environment: dict[str, str]) -> None:
        ours, theirs = pty.openpty() if terminal else (-1, subprocess.PIPE)
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs if terminal else subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=terminal,
        )
        if terminal:
            os.close(theirs)
            self._input = self._output = ours
        else:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._said = ""

    def say(self, line: str) -> None:
        self._said = ""
        os.write(self._input, line.encode() + b"\n")

    def hear(self, pattern: str) -> str:
        """All it says until the pattern has been matched."""
        end = time.monotonic() + SECONDS
        while (found := re.search(pattern, self._said, re.DOTALL)) is None:
            ready, _, _ = select.select([self._output], [], [], max(0, end - time.monotonic()))
            assert ready, f"not heard: {pattern} in {self._said}"
            data = os.read(self._output, 65536)
            assert data, f"the client ended: {self._said}"
            self._said += data.decode(errors="replace").replace("\r\n", "\n")
        heard, self._said = self._said[: found.end()], self._said[found.end() :]
        return heard

    def unhear(self, said: str) -> None:
        """There was more in it than was waited for."""
        self._said = said + self._said

    def leave(self, farewell: str = "") -> None:
        """Lets it end as its user does, by a last word or the end of input."""
        try:
            if farewell:
                self.say(farewell)
            elif self._process.stdin is not None:
                self._process.stdin.close()
            with contextlib.suppress(OSError):  # a terminal's way to end
                while select.select([self._output], [], [], SECONDS)[0] and os.read(self._output, 65536):
                    pass
            assert self._process.wait(SECONDS) == 0
        finally:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            else:
                os.close(self._output)
