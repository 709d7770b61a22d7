"""netopeer2 as the engine: what it finds in the node's repository, and how it is started, watched and stopped.

netopeer2 itself is rarely there, so a program stands in for it (netopeer2_standin.py); sysrepo and its repository are real.
The last test is for the real one, and says for the whole run whether it took part.
"""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from netconf_front import Front
from netopeer2_standin import Installation, until

from qswitch.agent import repository
from qswitch.agent.config import AgentConfig, RepositoryConfig, load_front
from qswitch.agent.errors import ConfigurationError
from qswitch.agent.netconf import engine, netopeer2, versions
from qswitch.integration import layout
from qswitch.integration.emulation import Emulation

# The list that netopeer2 2.8 comes with, of modules that other packages bring.
LISTED = """
ietf-interfaces@2018-02-20
ietf-ip@2018-02-22
ietf-netconf@2013-09-29 writable-running candidate rollback-on-error validate startup url xpath confirmed-commit
ietf-netconf-monitoring@2010-10-04
ietf-network-instance@2019-01-21
ietf-subscribed-notifications@2019-09-09 encode-xml replay subtree xpath
ietf-yang-push@2019-09-09 on-change
iana-ssh-encryption-algs@2024-10-16
ietf-crypto-types@2024-10-10 cleartext-passwords cleartext-private-keys
ietf-keystore@2024-10-10 central-keystore-supported inline-definitions-supported asymmetric-keys
ietf-ssh-common@2024-10-10 algorithm-discovery transport-params
ietf-ssh-server@2024-10-10 local-users-supported local-user-auth-publickey local-user-auth-password local-user-auth-none
ietf-tls-common@2024-10-10 algorithm-discovery tls12 tls13 hello-params
ietf-netconf-server@2025-04-24 ssh-listen tls-listen ssh-call-home tls-call-home central-netconf-server-supported
"""


class Node:
    """A folder with an `agent.toml`, a real repository and an installation in front of it."""

    def __init__(self, folder: Path, repository: RepositoryConfig) -> None:
        self.file, self.ready, self.log = folder / "agent.toml", folder / "ready", folder / "log"
        self.repository = repository
        self.netopeer2 = Installation(folder / "np2")

    def write(self, more: str = "") -> None:
        node = f'[node]\nrepository = "{self.repository.path}"\nshm_prefix = "{self.repository.shm_prefix}"\n'
        self.file.write_text(node + more)

    @contextmanager
    def running(
        self, *arguments: str, prefix: tuple[str, ...] = (), engine: str = "netopeer2"
    ) -> Iterator[subprocess.Popen[bytes]]:
        """`qkd-netconf`, serving or ended; at the end it is no more."""
        command = [sys.executable, "-m", "qswitch.agent.netconf.main", "--config", str(self.file), "--engine", engine]
        names = {**os.environ, "PATH": f"{self.netopeer2.server.parent}:{os.environ['PATH']}"}
        self.ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*prefix, *command, "--ready-file", str(self.ready), *arguments], env=names, stderr=log
            )
        try:
            until(lambda: self.ready.exists() or process.poll() is not None, "ready")
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def refused(self, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
        """The one line that a `qkd-netconf` which cannot serve ends with."""
        self.log.unlink(missing_ok=True)
        with self.running(*arguments, prefix=prefix) as process:
            assert process.wait(30) == 1
        text = self.log.read_text()
        assert "Traceback" not in text
        return text.splitlines()[-1]

    def needs_listed(self) -> None:
        """The program demands what the real one would, of what is here."""
        for name, *features in map(str.split, LISTED.strip().splitlines()):
            self.netopeer2.enlist(name, tuple(features))
            self.netopeer2.needs[name.partition("@")[0]] = [one for one in features if one != "local-user-auth-none"]
        self.netopeer2.need("standin")

    def ended(self) -> None:
        """Nothing that was started is left."""
        for call in self.netopeer2.calls():
            until(lambda pid=call["pid"]: not alive(pid), "the end of the stand-in")  # type: ignore[misc]

    def modules(self) -> dict[str, netopeer2.Module]:
        return netopeer2._installed(self.repository)


def alive(pid: int) -> bool:
    """Whether it runs: a process that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """With an empty repository: sysrepo's own modules only."""
    node = Node(tmp_path, RepositoryConfig(tmp_path / "sysrepo", f"qtn{uuid.uuid4().hex[:10]}"))
    node.repository.path.mkdir()
    (node.repository.path / repository.MARKER).write_text("{}")
    node.write()
    yield node
    node.ended()
    for left in Path("/dev/shm").glob(f"{node.repository.shm_prefix}*"):
        left.unlink()


# Modules ---------------------------------------------------------------------------------------------------------------


def test_modules_of_its_list_are_installed_once(node: Node) -> None:
    node.netopeer2.need("standin-more", features=("one",))
    node.netopeer2.enlist("ietf-netconf@2013-09-29", ("candidate", "url"))
    for _ in range(2):
        with node.running():
            assert node.modules()["standin-more"].features == {"one"}
            assert node.modules()["ietf-netconf"].features == {"candidate", "url"}
    assert node.log.read_text().count("installing modules names=standin,standin-more") == 1


def test_a_feature_that_would_let_in_too_many_stays_off(node: Node) -> None:
    node.netopeer2.enlist("standin@2026-01-01", ("one", "local-user-auth-none"))
    with node.running():
        assert node.modules()["standin"].features == {"one"}


def test_an_older_module_is_updated_and_its_data_stay(node: Node) -> None:
    with node.running():
        pass
    edit = '{"standin:note": "kept"}'
    for datastore in "startup", "running":
        repository.tool(node.repository, ["sysrepocfg", "-E", "-d", datastore, "-f", "json"], edit)
    node.netopeer2.need("standin", "2026-06-01", ("two",), "feature two;")
    with node.running():
        found = node.modules()["standin"]
        assert (found.revision, found.features) == ("2026-06-01", {"two"})
        assert "kept" in repository.tool(
            node.repository, ["sysrepocfg", "-X", "-d", "startup", "-m", "standin", "-f", "json"]
        )


def test_a_newer_module_is_left_alone(node: Node) -> None:
    node.netopeer2.need("standin", "2026-06-01")
    with node.running():
        pass
    node.netopeer2.need("standin", "2026-01-01")
    with node.running():
        assert node.modules()["standin"].revision == "2026-06-01"


def test_a_newer_file_will_do(node: Node) -> None:
    """netopeer2's list may be older than the libnetconf2 whose modules it names."""
    node.netopeer2.need("standin-more", "2026-06-01")
    node.netopeer2.enlist("standin-more@2026-01-01")
    with node.running():
        assert node.modules()["standin-more"].revision == "2026-06-01"


def test_missing_modules_are_named_with_the_folders(node: Node) -> None:
    node.netopeer2.need("standin-gone").unlink()
    words = node.refused()
    assert "netopeer2-server: needs standin-gone@2026-01-01.yang, in none of" in words
    assert str(node.netopeer2.modules) in words and "/usr/share/yang/modules/sysrepo" in words
    assert "standin" not in node.modules(), "half of the list is not installed"


def test_modules_may_lie_in_a_folder_of_ones_own(node: Node) -> None:
    own = node.file.parent / "own"
    own.mkdir()
    node.netopeer2.need("standin-own").rename(own / "standin-own@2026-01-01.yang")
    node.write('[netconf.netopeer2]\nmodules = ["own"]\n')
    with node.running():
        assert "standin-own" in node.modules()


def test_an_installation_without_its_list_is_refused(node: Node) -> None:
    (node.netopeer2.prefix / "share/netopeer2/scripts/common.sh").write_text("# nothing\n")
    words = node.refused()
    assert "its list of modules (common.sh or setup.sh) is in none of" in words
    assert str(node.netopeer2.prefix / "share/netopeer2/scripts") in words


def test_what_sysrepo_refuses_is_said(node: Node) -> None:
    node.netopeer2.need("standin-bad", more="leaf wrong { type no-such-type; }")
    assert "'sysrepoctl -s' failed: " in (words := node.refused())
    assert "no-such-type" in words


def test_a_repository_as_the_agent_prepares_it_fits_the_list(prepared: AgentConfig, tmp_path: Path) -> None:
    node = Node(tmp_path / "there", prepared.repository)
    node.write()
    node.needs_listed()
    with node.running():
        assert node.netopeer2.calls(), "it found all that it needs"
        server = repository.tool(prepared.repository, ["sysrepocfg", "-X", "-d", "startup", "-m", "ietf-netconf-server"])
        assert "local-port" in server, "what it is configured with is the node's own"
    node.ended()


def test_an_agent_at_work_goes_on(tmp_path: Path) -> None:
    """Modules come and features change under its connection and its subscriptions."""
    (tmp_path / "one.toml").write_text('name = "one"\nnodes = ["A"]\nspans = []\n')
    network = Emulation.create(layout.load(str(tmp_path / "one.toml")), tmp_path / "one", "netopeer2")
    asyncio.run(network.start_process("A", "agent"))
    try:
        node = Node(tmp_path / "there", load_front(network.home("A") / "agent.toml").repository)
        node.write()
        node.needs_listed()
        with node.running():
            edit = '{"etsi-qkd-sdn-node:qkd_node": {"qkdn_location_id": "elsewhere"}}'
            repository.tool(node.repository, ["sysrepocfg", "-E", "-d", "running", "-f", "json"], edit)
            until(lambda: "configuration changed" in (network.home("A") / "agent.log").read_text(), "the agent's word")
            place = ["sysrepocfg", "-X", "-d", "operational", "-x", "/etsi-qkd-sdn-node:qkd_node"]
            assert "elsewhere" in repository.tool(node.repository, place)
            assert network.running().keys() == {"a/agent"}
        node.ended()
    finally:
        assert asyncio.run(network.down()) == []


# Start and stop --------------------------------------------------------------------------------------------------------


def test_it_is_told_where_and_how(node: Node) -> None:
    with node.running() as process:
        (call,) = node.netopeer2.calls()
        path = node.repository.path
        places = {"-p": str(path / "netopeer2.pid"), "-f": str(path / "netopeer2")}
        assert call["options"] == {"-d": "", "-v": "1", "-t": "30", **places}
        assert call["SYSREPO_REPOSITORY_PATH"] == str(path)
        assert call["SYSREPO_SHM_PREFIX"] == node.repository.shm_prefix
        assert stat.S_IMODE((path / "netopeer2").stat().st_mode) == 0o700
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert not alive(call["pid"]) and not node.ready.exists()


def test_it_is_preferred_where_it_is_installed(node: Node) -> None:
    with node.running(engine="auto"):
        assert len(node.netopeer2.calls()) == 1


def test_one_that_does_not_fit_is_left_out_where_nobody_asked_for_it(node: Node) -> None:
    node.netopeer2.server.write_text("#!/bin/sh\necho it is broken >&2\n")
    path = f"{node.netopeer2.server.parent}:{os.environ['PATH']}"
    for wanted, words in ("auto", "is left out"), ("netopeer2", "Error: "):
        command = [sys.executable, "-c", f"from qswitch.agent.netconf.engine import *; choose(Engine('{wanted}'))"]
        done = subprocess.run(
            command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=15, check=False
        )
        assert done.returncode == (wanted == "netopeer2")
        assert words in done.stderr and f"{node.netopeer2.server}: cannot run here: it is broken" in done.stderr


def test_options_of_the_file_and_the_command_line_reach_it(node: Node) -> None:
    node.write('[netconf]\nengine = "builtin"\n[netconf.netopeer2]\ntimeout_seconds = 90\n')
    with node.running("--verbose"):
        options = node.netopeer2.calls()[0]["options"]
        assert (options["-t"], options["-v"]) == ("90", "2")


def test_its_log_is_passed_on(node: Node) -> None:
    node.netopeer2.program(after='log("WRN", "a warning"); log("INF", "a word"); print("bare", file=sys.stderr, flush=True)')
    with node.running():
        until(lambda: "bare" in node.log.read_text(), "the log")
    text = node.log.read_text()
    for line in "WARNING qswitch.agent.netconf.engine netopeer2: [WRN]: NP: a warning", "netopeer2: [INF]: NP: a word":
        assert line in text


def test_a_line_without_end_stops_nothing(node: Node) -> None:
    node.netopeer2.program(after='print("x" * (4 << 20), file=sys.stderr); log("WRN", "behind it")')
    with node.running():
        until(lambda: "behind it" in node.log.read_text(), "the log")


def test_one_that_cannot_start_is_given_up_with_its_words(node: Node) -> None:
    node.netopeer2.program(before='log("ERR", "Server init failed."); sys.exit(1)')
    assert node.refused() == "Error: netopeer2-server: cannot start: [ERR]: NP: Server init failed."
    assert len(node.netopeer2.calls()) == 1


def test_one_that_crashes_is_started_again(node: Node) -> None:
    with node.running() as process:
        os.kill(node.netopeer2.calls()[0]["pid"], signal.SIGKILL)
        pid_file = node.repository.path / "netopeer2.pid"
        until(lambda: len(node.netopeer2.calls()) == 2, "the second start")
        until(lambda: pid_file.exists() and str(node.netopeer2.calls()[1]["pid"]) in pid_file.read_text(), "its service")
        assert process.poll() is None
    assert "netopeer2 ended by itself, starting it again code=-9" in node.log.read_text()


def test_one_that_crashes_again_and_again_is_given_up(node: Node) -> None:
    node.netopeer2.program(after='time.sleep(0.1); log("ERR", "out of luck"); sys.exit(3)')
    words = node.refused()
    assert words == "Error: netopeer2-server: ended 5 times, each within 30 s: " + "; ".join(["[ERR]: NP: out of luck"])
    assert len(node.netopeer2.calls()) == engine.MOST_FAILURES


def test_one_that_fails_to_come_back_at_once_is_tried_again(node: Node) -> None:
    turn = "turn = len((prefix / 'calls').read_text().splitlines())\n"
    node.netopeer2.program(
        before=turn + "if turn == 2: log('ERR', 'not yet'); sys.exit(1)",
        after="if turn == 1: time.sleep(0.1); sys.exit(3)",
    )
    with node.running() as process:
        until(lambda: node.log.read_text().count("netopeer2 serves") == 2, "its service")
        assert process.poll() is None and len(node.netopeer2.calls()) == 3


async def test_one_that_hangs_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "START_SECONDS", 0.5)
    monkeypatch.setenv("PATH", f"{node.netopeer2.server.parent}:{os.environ['PATH']}")
    node.netopeer2.program(before="signal.pause()")
    with pytest.raises(ConfigurationError, match=r"cannot start: it did not serve within 0\.5 s"):
        await engine.Netopeer2(load_front(node.file)).run(asyncio.Event(), lambda: None)


async def test_one_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STOP_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); signal.pause()"
    child = await engine.Child.start([sys.executable, "-c", f"import sys; sys.stdout = sys.stderr; {deaf}"], {})
    async with asyncio.timeout(10):
        while "deaf" not in child.last_words:
            await asyncio.sleep(0.01)
    await child.end()
    assert child.code == -signal.SIGKILL


# Left behind -----------------------------------------------------------------------------------------------------------


def test_it_does_not_outlive_a_killed_front_end(node: Node) -> None:
    with node.running() as process:
        (call,) = node.netopeer2.calls()
        process.kill()
        until(lambda: not alive(call["pid"]), "the end of the child")


def test_one_that_was_left_behind_is_ended(node: Node) -> None:
    """With file capabilities on netopeer2-server the kernel forgets to tell it of its parent's end."""
    node.netopeer2.program(after="import ctypes; ctypes.CDLL(None).prctl(1, 0); log('WRN', 'on my own')")
    with node.running() as process:
        until(lambda: "on my own" in node.log.read_text(), "the log")
        process.kill()
        process.wait(15)
    node.netopeer2.program()
    left = node.netopeer2.calls()[0]["pid"]
    assert alive(left)
    with node.running():
        assert not alive(left)
    assert f"left behind by an earlier front end, ending it pid={left}" in node.log.read_text()


def test_a_stranger_in_the_pid_file_is_left_alone(node: Node, tmp_path: Path) -> None:
    """A process that took the number, and a netopeer2 of another repository."""
    other = Installation(tmp_path / "other")
    command = [str(other.server), "-d", "-p", str(tmp_path / "other.pid"), "-f", str(tmp_path)]
    elsewhere = {**os.environ, "SYSREPO_REPOSITORY_PATH": str(tmp_path / "elsewhere"), "SYSREPO_SHM_PREFIX": "qtelsewhere"}
    other.needs.clear()
    (other.prefix / "needs").write_text("{}")
    for stranger in ["sleep", "60"], command:
        process = subprocess.Popen(stranger, env=elsewhere)
        try:
            (node.repository.path / "netopeer2.pid").write_text(f"{process.pid}\n")
            with node.running():
                assert process.poll() is None
        finally:
            process.kill()
            process.wait()
    for left in Path("/dev/shm").glob("qtelsewhere*"):
        left.unlink()


# What is refused -------------------------------------------------------------------------------------------------------


def test_one_repository_has_one_server(node: Node) -> None:
    with node.running():
        command = [sys.executable, "-m", "qswitch.agent.netconf.main", "--config", str(node.file), "--engine", "builtin"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
        assert (done.returncode, len(node.netopeer2.calls())) == (1, 1)
        assert "another qkd-netconf serves this repository" in done.stderr


def test_a_repository_that_is_not_writable_is_named(node: Node) -> None:
    node.repository.path.chmod(0o555)
    # The superuser may write everywhere, unless that is taken from it.
    plain = ("setpriv", "--bounding-set", "-dac_override") if os.geteuid() == 0 else ()
    try:
        assert f"{node.repository.path}: the repository is not writable: Permission denied" in node.refused(prefix=plain)
    finally:
        node.repository.path.chmod(0o755)


needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no compiler to make such a program with")


@pytest.fixture
def elf(tmp_path: Path) -> tuple[Path, Path]:
    """A program that uses a libsysrepo of another SO number, and that library."""
    library, program = tmp_path / "libsysrepo.so.7", tmp_path / "netopeer2-server"
    (tmp_path / "l.c").write_text("int answer(void) { return 0; }\n")
    (tmp_path / "m.c").write_text("int answer(void);\nint main(void) { return answer(); }\n")
    gcc = ["gcc", "-o"]
    subprocess.run([*gcc, library, "-shared", "-Wl,-soname,libsysrepo.so.7", tmp_path / "l.c"], check=True)
    subprocess.run([*gcc, program, tmp_path / "m.c", library, f"-Wl,-rpath,{tmp_path}"], check=True)
    return program, library


@needs_compiler
@pytest.mark.parametrize("there", [True, False])
def test_another_sysrepo_is_told_apart(elf: tuple[Path, Path], there: bool) -> None:
    program, library = elf
    if not there:
        library.unlink()
    with pytest.raises(ConfigurationError, match=r"uses libsysrepo\.so\.7 where this software uses libsysrepo\.so\.\d+"):
        netopeer2.check(program)


@needs_compiler
def test_a_program_that_does_not_load_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "m.c").write_text("int gone(void);\nint main(void) { return gone(); }\n")
    (tmp_path / "g.c").write_text("int gone(void) { return 0; }\n")
    gone, program = tmp_path / "libgone.so", tmp_path / "netopeer2-server"
    subprocess.run(["gcc", "-o", gone, "-shared", "-Wl,-soname,libgone.so", tmp_path / "g.c"], check=True)
    subprocess.run(["gcc", "-o", program, tmp_path / "m.c", gone], check=True)
    gone.unlink()
    with pytest.raises(ConfigurationError, match=r"cannot run here: .*libgone\.so"):
        netopeer2.check(program)


def test_sysrepos_own_tool_uses_the_same_libraries() -> None:
    tool = shutil.which("sysrepoctl")
    assert tool is not None
    versions.check_libraries(Path(tool))
    assert versions.libraries(Path(tool))["libsysrepo"] == versions.libraries(versions.bindings())["libsysrepo"]


@pytest.mark.parametrize("installed", [True, False])
def test_versions(node: Node, installed: bool) -> None:
    path = f"{node.netopeer2.server.parent}:{os.environ['PATH']}" if installed else os.environ["PATH"]
    command = [sys.executable, "-m", "qswitch.agent.netconf.main", "--version"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=15, check=True)
    first = [line.split()[0] for line in done.stdout.splitlines()]
    assert first == ["qkd-netconf", "libsysrepo", "libyang", "asyncssh", "netopeer2-server"]
    if installed:
        assert done.stdout.splitlines()[-1] == "netopeer2-server 2.8.7"


# The real one ----------------------------------------------------------------------------------------------------------

ESTABLISH = """<establish-subscription xmlns="urn:ietf:params:xml:ns:yang:ietf-subscribed-notifications">
<stream>NETCONF</stream></establish-subscription>"""


@pytest.mark.engine(
    "netopeer2", reason="netopeer2-server is not installed, or not asked for: all ran on the built-in engine only"
)
async def test_the_suite_ran_on_netopeer2(front: Front) -> None:
    """It logs in the node's users with the node's host key, and serves what only it does (RFC 8639)."""
    async with front.connect() as client:
        await client.ok("<get-config><source><running/></source></get-config>")
        assert await client.ok(ESTABLISH)
