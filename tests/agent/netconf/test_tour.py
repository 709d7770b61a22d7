"""Unchanged public clients on tour: each does on a node, in its own way, what tests/support/tour.py tells."""

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

import pytest
from ncclient.operations import RPCError
from netconf_front import QKD, Front
from scrapli_netconf.driver import AsyncNetconfDriver
from scrapli_netconf.response import NetconfResponse
from tour import FILTER, SECONDS, Program, tour

from qswitch import yang
from qswitch.protocol.netconf import MONITORING, NOTIFICATION


def subscription(since: str) -> str:
    start = f"<startTime>{since}</startTime>" if since else ""
    return f'<create-subscription xmlns="{NOTIFICATION}">{start}</create-subscription>'


class Ncclient:
    def __init__(self, front: Front) -> None:
        self._manager = front.stock(seconds=SECONDS)

    def __enter__(self) -> "Ncclient":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close_session()

    def capabilities(self) -> str:
        return "\n".join(self._manager.server_capabilities)

    def schema(self, name: str, revision: str) -> str:
        return str(self._manager.get_schema(name, revision).data)

    def edit(self, data: str) -> None:
        self._manager.edit_config(f"<config>{data}</config>", target="candidate")

    def validate(self) -> None:
        self._manager.validate("candidate")

    def commit(self, confirm_seconds: int = 0) -> None:
        self._manager.commit(confirmed=bool(confirm_seconds), timeout=str(confirm_seconds) if confirm_seconds else None)

    def links(self) -> str:
        return str(self._manager.get_config("running", filter=("subtree", FILTER)).data_xml)

    def lock(self) -> str:
        try:
            self._manager.lock("running")
        except RPCError as error:
            return f"{error.tag} {error.info}"
        return ""

    def unlock(self) -> None:
        self._manager.unlock("running")

    def subscribe(self, since: str = "") -> None:
        self._manager.create_subscription(start_time=since or None)

    def notification(self) -> str:
        found = self._manager.take_notification(timeout=SECONDS)
        assert found is not None
        return str(found.notification_xml)

    def kill(self, session_id: str) -> None:
        self._manager.kill_session(session_id)


class Scrapli:
    """It has no operation for get-schema, subscriptions and kill-session, and none that waits for notifications: they are
    sent as bare RPCs, and read from its channel."""

    def __init__(self, front: Front) -> None:
        self._loop = asyncio.Runner()
        self._driver = AsyncNetconfDriver(
            "127.0.0.1",
            front.port,
            auth_username="controller",
            auth_private_key=str(front.key_file("controller")),
            auth_strict_key=False,
            transport="asyncssh",
            timeout_ops=SECONDS,
        )

    def __enter__(self) -> "Scrapli":
        self._loop.run(self._driver.open())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._driver.close())
        self._loop.close()

    def _done(self, asked: Coroutine[Any, Any, NetconfResponse]) -> str:
        response = self._loop.run(asked)
        assert not response.failed, response.result
        return str(response.result)

    def capabilities(self) -> str:
        return "\n".join(self._driver.server_capabilities)

    def schema(self, name: str, revision: str) -> str:
        asked = f"<identifier>{name}</identifier><version>{revision}</version>"
        return self._done(self._driver.rpc(f'<get-schema xmlns="{MONITORING}">{asked}</get-schema>'))

    def edit(self, data: str) -> None:
        self._done(self._driver.edit_config(f"<config>{data}</config>", target="candidate"))

    def validate(self) -> None:
        self._done(self._driver.validate("candidate"))

    def commit(self, confirm_seconds: int = 0) -> None:
        self._done(self._driver.commit(confirmed=bool(confirm_seconds), timeout=confirm_seconds or None))

    def links(self) -> str:
        return self._done(self._driver.get_config("running", filter_=FILTER))

    def lock(self) -> str:
        response = self._loop.run(self._driver.lock("running"))
        return str(response.result) if response.failed else ""

    def unlock(self) -> None:
        self._done(self._driver.unlock("running"))

    def subscribe(self, since: str = "") -> None:
        self._done(self._driver.rpc(subscription(since)))

    def notification(self) -> str:
        return self._loop.run(self._driver.channel.read()).decode()

    def kill(self, session_id: str) -> None:
        self._done(self._driver.rpc(f"<kill-session><session-id>{session_id}</session-id></kill-session>"))


class Console:
    """netconf-console2, told what to do line by line. It has no option for replay; a bare RPC does it, but to print what
    is notified it wants to have been asked for a subscription, be it one that is refused."""

    _REPLY = r"<\?xml[^\n]*\n(?:<([\w:-]+)[^<>]*/>|<([\w:-]+).*</\2>)\n"

    def __init__(self, front: Front) -> None:
        program = shutil.which("netconf-console2")
        assert program is not None
        # Without an SSH configuration it adds a password of its own, and then cannot read a key that has none.
        self._folder = front.path
        (front.path / "ssh_config").touch()
        key = str(front.key_file("controller"))
        login = ("--host", "127.0.0.1", "--port", str(front.port), "--user", "controller", "--privKeyFile", key)
        config = ("--ssh-config", str(front.path / "ssh_config"))
        self._program = Program(program, *config, *login, "-i", terminal=False, environment={"PYTHONUNBUFFERED": "1"})

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self._program.leave()

    def _asked(self, command: str) -> str:
        self._program.say(command)
        return self._program.hear(self._REPLY)

    def _done(self, command: str) -> str:
        said = self._asked(command)
        assert "rpc-error>" not in said, said
        return unescape(said)

    def _file(self, text: str) -> Path:
        file = self._folder / "console.xml"
        file.write_text(text)
        return file

    def capabilities(self) -> str:
        return self._done("hello")

    def schema(self, name: str, revision: str) -> str:
        return self._done(f"get-schema {name}/{revision}")

    def edit(self, data: str) -> None:
        self._done(f"edit-config --db candidate {self._file(data)}")

    def validate(self) -> None:
        self._done("validate candidate")

    def commit(self, confirm_seconds: int = 0) -> None:
        self._done(f"commit confirmed --timeout {confirm_seconds}" if confirm_seconds else "commit")

    def links(self) -> str:
        return self._done(f"get-config --db running -x /*[namespace-uri()='{QKD}']")

    def lock(self) -> str:
        said = self._asked("lock --db running")
        return said if "rpc-error>" in said else ""

    def unlock(self) -> None:
        self._done("unlock --db running")

    def subscribe(self, since: str = "") -> None:
        if since:
            assert "rpc-error>" in self._asked("create-subscription none")
            said = self._done(f"rpc {self._file(subscription(since))}")
        else:
            said = self._done("create-subscription")
        self._program.unhear(said)  # a thread of its own prints what is notified, maybe before the reply

    def notification(self) -> str:
        return self._program.hear("</notification>")

    def kill(self, session_id: str) -> None:
        self._done(f"kill-session {session_id}")


class Yangcli:
    """yangcli, on a terminal. Of the modules of the node it loads those that it needs by itself: told to load all, it breaks
    on YANG 1.1 of ietf-netconf-server and ends."""

    _PROMPT = "yangcli controller@127.0.0.1> "
    _MODULES = (yang.NODE, "ietf-netconf-monitoring", "notifications", "nc-notifications")

    def __init__(self, front: Front) -> None:
        program = shutil.which("yangcli")
        assert program is not None
        self._folder = front.path
        public = front.path / "controller.pub"
        front.keys["controller"].write_public_key(str(public))
        kept = (f"--{one}=false" for one in ("autoaliases", "autohistory", "autouservars", "autoload"))
        modules = (f"--module={one}" for one in self._MODULES)
        environment = {"TERM": "dumb", "HOME": str(front.path), "YUMA_MODPATH": ":".join(map(str, yang.SEARCH))}
        self._program = Program(program, *kept, *modules, "--display-mode=xml", terminal=True, environment=environment)
        self._program.hear("yangcli> ")
        self._program.say(
            f"connect server=127.0.0.1 ncport={front.port} user=controller password=none "
            f"private-key={front.key_file('controller')} public-key={public}"
        )
        assert "Protocol version set to: RFC 6241 (base:1.1)" in self._program.hear(self._PROMPT)

    def __enter__(self) -> "Yangcli":
        return self

    def __exit__(self, *_: object) -> None:
        self._program.leave("quit")

    def _asked(self, command: str) -> str:
        self._program.say(command)
        return unescape(self._program.hear(rf"RPC \w+ Reply \d+ for session \d+:.*{self._PROMPT}"))

    def _done(self, command: str) -> str:
        said = self._asked(command)
        assert "RPC Error" not in said, said
        return said

    def capabilities(self) -> str:
        return self._done("xget /netconf-state/capabilities")

    def schema(self, name: str, revision: str) -> str:
        return self._done(f"get-schema identifier={name} version={revision} format=yang")

    def edit(self, data: str) -> None:
        file = self._folder / "yangcli.xml"
        file.write_text(data)
        self._done(f"edit-config target=candidate default-operation=merge config=@{file}")

    def validate(self) -> None:
        self._done("validate source=candidate")

    def commit(self, confirm_seconds: int = 0) -> None:
        self._done(f"commit confirmed confirm-timeout={confirm_seconds}" if confirm_seconds else "commit")

    def links(self) -> str:
        return self._done("xget-config /qkd_node/qkd_links source=running")

    def lock(self) -> str:
        said = self._asked("lock target=running")
        return said if "RPC Error" in said else ""

    def unlock(self) -> None:
        self._done("unlock target=running")

    def subscribe(self, since: str = "") -> None:
        self._done(f"create-subscription startTime={since}" if since else "create-subscription")

    def notification(self) -> str:
        return self._program.hear("</notification>")

    def kill(self, session_id: str) -> None:
        self._done(f"kill-session session-id={session_id}")


def test_ncclient(front: Front) -> None:
    tour(lambda: Ncclient(front), front)


def test_scrapli(front: Front) -> None:
    tour(lambda: Scrapli(front), front)


def test_netconf_console(front: Front) -> None:
    tour(lambda: Console(front), front)


@pytest.mark.skipif(
    shutil.which("yangcli") is None, reason="no yangcli here: integration/runtime takes it from Debian trixie"
)
def test_yangcli(front: Front) -> None:
    tour(lambda: Yangcli(front), front)
