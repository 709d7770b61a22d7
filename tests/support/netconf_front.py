"""A node's NETCONF side for tests: a real repository, a real `qkd-netconf` process, and a client that knows the bytes."""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
from lxml import etree
from ncclient import manager

from qswitch import yang
from qswitch.agent.repository import MARKER
from qswitch.protocol import netconf

QKD = "urn:etsi:qkd:yang:etsi-qkd-node"
NODE = str(uuid.UUID(int=0xA))
PEER = str(uuid.UUID(int=0xB))

NACM = """
<nacm xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-acm">
  <groups><group><name>controller</name><user-name>controller</user-name></group>
          <group><name>monitor</name><user-name>monitor</user-name></group></groups>
  <rule-list><name>monitor</name><group>monitor</group>
    <rule><name>no-keys</name><module-name>ietf-keystore</module-name><access-operations>*</access-operations>
      <action>deny</action></rule>
    <rule><name>no-link-down</name><module-name>etsi-qkd-sdn-node</module-name>
      <notification-name>sdqkdn_link_down</notification-name><access-operations>read</access-operations>
      <action>deny</action></rule>
    <rule><name>no-schema</name><module-name>ietf-netconf-monitoring</module-name><rpc-name>get-schema</rpc-name>
      <access-operations>exec</access-operations><action>deny</action></rule>
  </rule-list>
  <rule-list><name>controller</name><group>controller</group>
    <rule><name>all</name><module-name>*</module-name><access-operations>*</access-operations><action>permit</action></rule>
  </rule-list>
</nacm>"""


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def server_data(port: int, host_key: asyncssh.SSHKey, users: dict[str, asyncssh.SSHKey]) -> str:
    """What ietf-netconf-server and ietf-keystore say of this node."""
    entries = "".join(
        f"<user><name>{name}</name><public-keys><inline-definition><public-key><name>key</name>"
        "<public-key-format>ct:ssh-public-key-format</public-key-format>"
        f"<public-key>{_encoded(key.public_data)}</public-key></public-key></inline-definition></public-keys></user>"
        for name, key in users.items()
    )
    return f"""
<keystore xmlns="urn:ietf:params:xml:ns:yang:ietf-keystore" xmlns:ct="urn:ietf:params:xml:ns:yang:ietf-crypto-types"
          xmlns:ln="urn:cesnet:libnetconf2-netconf-server">
  <asymmetric-keys><asymmetric-key><name>genkey</name>
    <public-key-format>ct:ssh-public-key-format</public-key-format>
    <public-key>{_encoded(host_key.public_data)}</public-key>
    <private-key-format>ln:private-key-info-format</private-key-format>
    <cleartext-private-key>{_encoded(host_key.export_private_key("pkcs8-der"))}</cleartext-private-key>
  </asymmetric-key></asymmetric-keys></keystore>
<netconf-server xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-server"
                xmlns:ct="urn:ietf:params:xml:ns:yang:ietf-crypto-types">
  <listen><endpoints><endpoint><name>default-ssh</name><ssh>
    <tcp-server-parameters><local-bind><local-address>127.0.0.1</local-address><local-port>{port}</local-port></local-bind>
    </tcp-server-parameters>
    <ssh-server-parameters><server-identity><host-key><name>default-key</name>
      <public-key><central-keystore-reference>genkey</central-keystore-reference></public-key></host-key></server-identity>
      <client-authentication><users>{entries}</users></client-authentication></ssh-server-parameters>
  </ssh></endpoint></endpoints></listen></netconf-server>"""


@dataclass
class Client:
    """A NETCONF client that can also misbehave: it writes whatever bytes it is given."""

    connection: asyncssh.SSHClientConnection
    stdin: asyncssh.SSHWriter[bytes]
    stdout: asyncssh.SSHReader[bytes]
    framing: netconf.Framing = field(default_factory=netconf.Framing)
    hello: netconf.Hello | None = None
    ids: int = 0

    async def greet(self, *capabilities: str) -> None:
        self.hello = netconf.parse_hello(await self.receive())
        self.send(netconf.build_hello(netconf.Hello(capabilities)))
        if netconf.BASE_1_1 in capabilities:
            self.framing.use_chunks()

    def send(self, message: bytes) -> None:
        self.stdin.write(self.framing.frame(message))

    async def receive(self) -> bytes:
        """The next message; EOFError when the server closed the session."""
        async with asyncio.timeout(10):
            while (message := self.framing.next_message()) is None:
                data = await self.stdout.read(65536)
                if not data:
                    raise EOFError
                self.framing.receive(data)
        return message

    async def reply(self) -> netconf.RpcReply:
        return netconf.parse_reply(await self.receive())

    async def rpc(self, operation: str) -> netconf.RpcReply:
        """One operation, its elements in the base namespace unless they say otherwise."""
        self.ids += 1
        self.send(netconf.build_rpc(str(self.ids), operation.encode()))
        reply = await self.reply()
        assert reply.message_id == str(self.ids)
        return reply

    async def ok(self, operation: str) -> tuple[etree._Element, ...]:
        reply = await self.rpc(operation)
        assert not reply.errors, reply.errors
        return reply.content

    async def refused(self, operation: str) -> netconf.RpcError:
        reply = await self.rpc(operation)
        assert len(reply.errors) == 1, reply
        return reply.errors[0]

    async def edit(self, config: str, options: str = "") -> netconf.RpcReply:
        return await self.rpc(f"<edit-config><target><running/></target>{options}<config>{config}</config></edit-config>")


@dataclass
class Front:
    """The node as its clients and its agent see it."""

    path: Path
    port: int
    host_key: asyncssh.SSHKey
    keys: dict[str, asyncssh.SSHKey]
    environment: dict[str, str]
    beside: subprocess.Popen[str] | None = None
    process: subprocess.Popen[bytes] | None = None
    arguments: tuple[str, ...] = ()
    engine: str = "builtin"

    def key_file(self, user: str) -> Path:
        return self.path / f"{user}.key"

    def start(self) -> None:
        ready = self.path / "ready"
        ready.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "qswitch.agent.netconf.main",
            "--engine",
            self.engine,
            "--config",
            str(self.path / "agent.toml"),
        ]
        self.process = subprocess.Popen([*command, "--ready-file", str(ready)])
        deadline = time.monotonic() + 20
        while not ready.exists():
            assert self.process.poll() is None, "qkd-netconf ended"
            assert time.monotonic() < deadline, "qkd-netconf is not ready in time"
            time.sleep(0.01)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(15)

    @asynccontextmanager
    async def connect(
        self, user: str = "controller", *capabilities: str, key: asyncssh.SSHKey | None = None, greet: bool = True
    ) -> AsyncIterator[Client]:
        async with asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=user,
            client_keys=[key or self.keys[user]],
            known_hosts=None,
            config=None,
            gss_host=None,
        ) as connection:
            stdin, stdout, _ = await connection.open_session(subsystem="netconf", encoding=None)
            client = Client(connection, stdin, stdout)
            if greet:
                await client.greet(*(capabilities or (netconf.BASE_1_0, netconf.BASE_1_1)))
            yield client

    def stock(self, user: str = "controller", seconds: float = 10) -> Any:
        """A session of unchanged ncclient."""
        return manager.connect(
            host="127.0.0.1",
            port=self.port,
            username=user,
            key_filename=str(self.key_file(user)),
            hostkey_verify=False,
            allow_agent=False,
            look_for_keys=False,
            timeout=seconds,
        )

    def resident(self) -> int:
        """Octets of memory of the serving process."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def side(self, command: str, argument: str = "") -> None:
        """Has the process beside the server do something to the repository (see sysrepo_side.py)."""
        if self.beside is None:
            program = Path(__file__).with_name("sysrepo_side.py")
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.beside = subprocess.Popen([sys.executable, str(program)], env=self.environment, text=True, **pipes)
        assert self.beside.stdin is not None and self.beside.stdout is not None
        self.beside.stdin.write(json.dumps([command, argument]) + "\n")
        self.beside.stdin.flush()
        problem = json.loads(self.beside.stdout.readline())
        assert problem is None, problem

    def stop_side(self) -> None:
        """Ends that process in good order: locks and subscriptions go."""
        if self.beside is not None:
            self.beside.communicate(timeout=10)
            self.beside = None


def install(front: Front) -> None:
    """Installs what a node implements; the node's id is mandatory, so it comes with the modules."""
    initial = front.path / "initial.xml"
    initial.write_text(f'<qkd_node xmlns="{QKD}"><qkdn_id>{NODE}</qkdn_id></qkd_node>')
    command = ["sysrepoctl", "-s", ":".join(map(str, yang.SEARCH))]
    for module in (*yang.SERVER, *yang.QKD):
        command += ["-i", str(module.file), *(part for one in module.features for part in ("-e", one))]
    command += ["-I", str(initial)]
    done = subprocess.run(command, check=False, env=front.environment, capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    features = [part for one in yang.NETCONF_FEATURES for part in ("-e", one)]
    subprocess.run(["sysrepoctl", "-c", "ietf-netconf", *features], check=True, env=front.environment, timeout=60)
    for name in yang.REPLAY:
        subprocess.run(["sysrepoctl", "-c", name, "-r", "on"], check=True, env=front.environment, timeout=60)
    (front.path / "sysrepo" / MARKER).write_text("{}")


@contextmanager
def serving(
    path: Path, users: Sequence[str], install: Callable[[Front], None] = install, rules: str = NACM, engine: str = "builtin"
) -> Iterator[Front]:
    """A prepared repository below a folder, with a serving process; all of it is gone afterwards."""
    prefix = f"qt{uuid.uuid4().hex[:10]}"
    names = {"SYSREPO_REPOSITORY_PATH": str(path / "sysrepo"), "SYSREPO_SHM_PREFIX": prefix}
    (path / "sysrepo").mkdir()
    (path / "agent.toml").write_text(f'[node]\nrepository = "sysrepo"\nshm_prefix = "{prefix}"\n')
    keys = {user: asyncssh.generate_private_key("ssh-ed25519") for user in users}
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    front = Front(path, free_port(), host_key, keys, {**os.environ, **names}, engine=engine)
    for user, key in keys.items():
        key.write_private_key(str(front.key_file(user)))
        front.key_file(user).chmod(0o600)
    try:
        install(front)
        front.side("apply", rules + server_data(front.port, host_key, keys))
        front.start()
        yield front
        assert front.stop() == 0
    finally:
        if front.process is not None and front.process.poll() is None:
            front.process.kill()
        front.stop_side()
        for leftover in Path("/dev/shm").glob(f"{prefix}*"):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(path / "sysrepo", ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
