"""qkdctl against the real API: what people read, what programs get, what is said when something is wrong."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from held_network import FIRST, KSID, NODES, SECOND, VIRTUAL, Served

from qswitch.controller.cli.main import main
from qswitch.controller.model import LinkStatus, PathStateView

type Run = Callable[..., Result]


@pytest.fixture
def run(served: Served) -> Run:
    def qkdctl(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(main, ["--network", str(served.descriptor), *arguments], **options)

    return qkdctl


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


# What people read ------------------------------------------------------------------------------------------------------

NODE_LIST = """
NAME     STATUS     CONNECTED  INTERFACES  LINKS  APPS  LOCATION  ID
Quiron   OPERATING  yes                 1      2     1  Madrid    11111111-0000-4000-8000-000000000001
Quijote  OPERATING  yes                 2      3     0  Madrid    22222222-0000-4000-8000-000000000002
Quinto   OPERATING  yes                 1      2     1  Madrid    22222222-0000-4000-8000-000000000003
"""
LINK_LIST = """
LINK      TYPE  STATUS  ENDS            HOPS   KEY RATE     DEMAND  USABLE KEY    QBER     LOSS  APPS
aaaaaaaa  PHYS  ACTIVE  Quiron-Quijote     1   842 kb/s  42.0 kb/s     2.30 Mb  2.13 %  8.72 dB     0
aaaa2222  PHYS  ACTIVE  Quijote-Quinto     1   842 kb/s  42.0 kb/s     2.30 Mb  2.13 %  8.72 dB     0
bbbbbbbb  VIRT  ACTIVE  Quiron-Quinto      2  10.0 kb/s  1.00 kb/s      500 kb       -        -     1
"""
LINK_SHOW = """
link         bbbbbbbb-0000-4000-8000-000000000003
type         VIRT
status       ACTIVE
route        Quiron → Quijote → Quinto
key rate     10.0 kb/s
available    9.00 kb/s
demand       1.00 kb/s
bandwidth    10.0 kb/s
made for     applications
key streams  3f1b8f9e-7c51-4d0e-9b8a-51a0c4a2d001

Key stores
NODE    STATUS  STORED  USABLE  GENERATED  CONSUMED    BURNT
Quiron  ACTIVE  501 kb  500 kb    4.00 Mb   1.50 Mb  2.05 kb
Quinto  ACTIVE  501 kb  500 kb    4.00 Mb   1.50 Mb  2.05 kb

Relay: one-time pad spent at each hop, key held on the way
NODE     NEXT HOP  OVER LINK  RELAYED  PAD SPENT  PER BIT     HELD  FAILURES
Quiron   Quijote   aaaaaaaa   1.00 Mb    1.00 Mb   1.0020      0 b         0
Quijote  Quinto    aaaa2222   1.00 Mb    1.00 Mb   1.0020  4.10 kb         1
Quinto   -         -              0 b        0 b        -      0 b         0
"""
APP_LIST = """
KEY STREAM  STATUS  NODES          HOPS  CONSUMED  SERVER APPLICATION  CLIENT APPLICATIONS
3f1b8f9e    ON      Quiron-Quinto     2   25.6 kb  quiron-1            quinto-1
"""
PATH = """
Quiron → Quijote → Quinto
free on all of it: 800 kb/s
FROM     TO       OVER LINK
Quiron   Quijote  aaaaaaaa
Quijote  Quinto   aaaa2222
"""
TOPOLOGY = """
NODE        STATUS     KEY RATE  USABLE KEY    QBER     LOSS  KEY STREAMS
Quiron      OPERATING
└─ Quijote  ACTIVE     842 kb/s     2.30 Mb  2.13 %  8.72 dB            0
Quijote     OPERATING
├─ Quinto   ACTIVE     842 kb/s     2.30 Mb  2.13 %  8.72 dB            0
└─ Quiron   ACTIVE     842 kb/s     2.30 Mb  2.13 %  8.72 dB            0
Quinto      OPERATING
└─ Quijote  ACTIVE     842 kb/s     2.30 Mb  2.13 %  8.72 dB            0

Virtual links
LINK      STATUS  ROUTE                       KEY RATE  USABLE KEY  KEY STREAMS
bbbbbbbb  ACTIVE  Quiron → Quijote → Quinto  10.0 kb/s      500 kb            1
"""
HEALTH = """
status       ok
version      0.1.0
nodes        3 of 3 connected
links        3 of 3 active
key streams  1
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("node list", NODE_LIST),
        ("link list", LINK_LIST),
        (f"link show {VIRTUAL}", LINK_SHOW),
        ("app list", APP_LIST),
        ("path Quiron Quinto", PATH),
        ("topology", TOPOLOGY),
        ("health", HEALTH),
    ],
)
def test_what_people_read(run: Run, arguments: str, expected: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 0, result.output
    assert result.stdout == expected.removeprefix("\n")


def test_a_node_is_shown_with_all_that_belongs_to_it(run: Run) -> None:
    text = run("node", "show", "Quiron").stdout
    for part in (NODES["Quiron"], "127.0.0.1:8301", "TRANSCEIVER", "aaaaaaaa", "bbbbbbbb", "3f1b8f9e"):
        assert part in text
    assert "Quijote-Quinto" not in text


def test_a_link_over_disjoint_paths_is_shown_path_by_path(run: Run, served: Served) -> None:
    view = served.network._links[-1]
    short = (view.route[0], view.route[-1])
    paths = (PathStateView(FIRST, view.route, LinkStatus.ACTIVE), PathStateView(SECOND, short, LinkStatus.OFF))
    served.network._links[-1] = replace(view, paths=paths, disjoint_paths=2, relay=(), problem="only 1 node-disjoint route")
    shown = run("link", "show", view.link).stdout
    assert "path 1       Quiron → Quijote → Quinto\npath 2       Quiron → Quinto\n" in shown
    assert "problem      only 1 node-disjoint route" in shown
    assert "Path 2 is OFF: its share of the key" in shown
    header, *_, last = run("link", "list").stdout.splitlines()
    assert header.split()[-2:] == ["PATHS", "PROBLEM"]
    assert last.split("  ")[-2].strip() == "2"


def test_a_link_that_is_overloaded_says_so(run: Run, served: Served) -> None:
    assert "OVERLOADED" not in run("link", "list").stdout
    served.network._links[-1] = replace(served.network._links[-1], overloaded=True)
    assert "overloaded   yes: more key is asked of it than it has" in run("link", "show", VIRTUAL).stdout
    header, *rows = run("link", "list").stdout.splitlines()
    assert header.split()[-1] == "OVERLOADED"
    assert [row.split()[-1] for row in rows] == ["no", "no", "yes"]


def test_an_application_is_shown_with_its_quality_of_service(run: Run) -> None:
    lines = _lines(run("app", "show", "3f1b").stdout)
    assert "route                Quiron → Quijote → Quinto" in lines
    assert "at least             1.00 kb/s" in lines
    assert f"server application   qkd://{NODES['Quiron']}/quiron-1" in lines
    assert not any(line.startswith("at most") for line in lines)


def test_a_problem_of_a_node_gets_a_column(run: Run, served: Served) -> None:
    served.network.set_node("Quinto", connected=False, problem="connection refused")
    header, *rows = _lines(run("node", "list").stdout)
    assert header.endswith("PROBLEM")
    assert rows[2].endswith("connection refused")
    assert (run("health").exit_code, "degraded" in run("health").stdout) == (1, True)


def test_a_node_that_was_never_reached_is_shown(run: Run, served: Served) -> None:
    served.network.set_node("Quinto", qkdn_id=None, connected=False, lkms=None, etsi004=None, links=(), apps=())
    assert run("node", "list").exit_code == 0
    assert run("node", "show", "Quinto").exit_code == 0
    assert run("topology").exit_code == 0
    assert "2222" in run("link", "show", VIRTUAL).stdout  # no name: its id


def test_an_empty_network_says_so(run: Run, served: Served) -> None:
    served.network.clear()
    for command in ("node list", "link list", "app list", "topology"):
        result = run(*command.split())
        assert result.exit_code == 0
        assert "no" in result.stdout.lower(), command


def test_a_node_does_not_steer_the_terminal(run: Run, served: Served) -> None:
    served.network.set_node("Quinto", location="\x1b[2J\x07here\nand there")
    for command in ("node list", "node show Quinto"):
        assert "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}here and there" in run(*command.split()).stdout


CHECK_GOOD = """
node        Quiron
well        yes
address     127.0.0.1:8301
way         SSH, dialled: a new connection
steps       TCP connection 1.0 ms, SSH login 0.25 s
connect     0.25 s
round trip  median 1.2 ms, worst 3.4 ms of 10 get-config
clock       0.250 s behind the controller's, give or take 0.500 s: login-time of the session

note: modules: one is older

SSH
server        SSH-2.0-test
host key      ssh-ed25519 SHA256:shown: the configured one
key exchange  curve25519-sha256
cipher        aes256-ctr
MAC           hmac-sha2-256
compression   none
user          controller
login         publickey, ssh-ed25519 SHA256:own

Offered by the node
key exchange       curve25519-sha256 other
cipher             aes256-ctr
MAC to the node    hmac-sha2-256
MAC from the node  -

NETCONF
version  1.1
session  7
CAPABILITY      OFFERED  MEANING
:candidate:1.0  yes      edits can be prepared aside
:xpath:1.0      no       without it: nothing
and urn:other

Modules that the controller needs (the node has 40 others)
MODULE             REVISION    NEEDED      MEANING
etsi-qkd-sdn-node  2026-11-23  2026-11-23  as the controller knows it

Rights of this user
OPERATION     ALLOWED  FOUND OUT BY
read          yes      get-config
kill-session  ?        not tried
"""
CHECK_CALLING = """
node     Quinto
well     no
address  not known before it calls
way      TLS, node calls: a new connection

wrong: session: it has not called yet
       do: see its call-home

TLS
version       TLSv1.3
cipher suite  TLS_AES_256_GCM_SHA384
certificate   CN=Quinto
names         urn:uuid:x
issuer        CN=ca
valid         2026 to 2027
SHA-256       ab
configured    cd
"""
CHECK_ALL = """
NODE     WELL  WAY              CONNECT  ROUND TRIP     CLOCK  FINDINGS
Quiron   yes   SSH, dialled      0.25 s      1.2 ms  -0.250 s  modules
Quijote  no    SSH, dialled      1.0 ms           -         -  SSH key exchange
Quinto   no    TLS, node calls        -           -         -  session

Quiron
note: modules: one is older

Quijote
wrong: SSH key exchange: its host key is not the configured one
       do: compare

Quinto
wrong: session: it has not called yet
       do: see its call-home
"""


@pytest.mark.parametrize(
    ("arguments", "expected", "status"),
    [("Quiron", CHECK_GOOD, 0), ("Quinto", CHECK_CALLING, 1), ("--all", CHECK_ALL, 1)],
)
def test_a_check_of_a_node(run: Run, arguments: str, expected: str, status: int) -> None:
    result = run("node", "check", arguments)
    assert (result.exit_code, result.stdout) == (status, expected.removeprefix("\n"))


def test_a_host_key_that_is_another_one_stands_out(run: Run) -> None:
    text = run("node", "check", "Quijote").stdout
    assert "ssh-ed25519 SHA256:other: NOT the configured one, SHA256:shown" in text
    assert "clock    unknown: the node gave no time" in text


def test_checks_for_programs(run: Run) -> None:
    one = run("node", "check", "Quijote", "-o", "json")
    assert (one.exit_code, json.loads(one.stdout)["findings"][0]["level"]) == (1, "wrong")
    every = run("node", "check", "--all", "-o", "json")
    assert (every.exit_code, [report["well"] for report in json.loads(every.stdout)]) == (1, [True, False, False])


@pytest.mark.parametrize("arguments", [(), ("Quiron", "--all")])
def test_a_check_is_of_one_node_or_of_all(run: Run, arguments: tuple[str, ...]) -> None:
    result = run("node", "check", *arguments)
    assert result.exit_code == 2
    assert "say which NODE, or --all" in result.stderr


# What programs get -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ("node list", "nodes"),
        ("node show Quiron", "nodes/Quiron"),
        ("link list", "links"),
        (f"link show {VIRTUAL}", f"links/{VIRTUAL}"),
        ("app list", "apps"),
        (f"app show {KSID}", f"apps/{KSID}"),
        ("topology", "topology"),
        ("path Quiron Quinto", "path?source=Quiron&destination=Quinto"),
        ("health", "health"),
    ],
)
def test_json_is_what_the_api_says(run: Run, served: Served, arguments: str, path: str) -> None:
    with served.client() as http:
        expected = http.get(f"/v1/{path}").json()
    assert json.loads(run("--output", "json", *arguments.split()).stdout) == expected
    assert json.loads(run(*arguments.split(), "-o", "json").stdout) == expected


def test_events_are_one_object_a_line(run: Run, served: Served) -> None:
    served.network.happen("link_down", "fibre cut", FIRST)
    served.network.happen("link_up")
    one, other = run("events", "-o", "json").stdout.splitlines()
    assert json.loads(one)["link"] == FIRST
    assert json.loads(other)["seq"] == 2
    assert run("events").stdout.splitlines()[0].split() == [
        *("2026-11-23", "12:00:00", "Quijote", "link_down", "fibre", "cut"),
        f"[{FIRST}]",
    ]


# Names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [VIRTUAL, "b", "bbbbbbbb-0000", "Quiron-Quinto", "quinto-quiron"])
def test_a_link_goes_by_id_beginning_or_ends(run: Run, which: str) -> None:
    assert json.loads(run("link", "show", which, "-o", "json").stdout)["link"] == VIRTUAL


def test_ends_that_two_links_have_are_not_enough(run: Run) -> None:
    run("link", "create", "Quiron", "Quinto")
    result = run("link", "show", "quiron-quinto")
    assert result.exit_code == 1
    assert VIRTUAL in result.stderr and "cccccccc" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("node show Nowhere", "no node 'Nowhere'"),
        ("node show 2222", NODES["Quinto"]),
        ("node show ../links", "nothing is at /v1/nodes/../links"),
        ("link show aaaa", SECOND),
        ("link show a-b", "no link 'a-b'"),
        ("link show norte-sur", "qkdctl link list"),
        ("app show ffff", "ffff"),
        ("path Quiron Quinto --bandwidth 900k", "no link has 900000 bit/s free"),
        (f"link delete {VIRTUAL}", "1 application uses it"),
        ("link create Quiron Quiron", "both ends are the same node"),
        ("link create Quiron Quinto --disjoint-paths 2", "only 1 node-disjoint route, 2 were asked for"),
    ],
)
def test_a_refusal_is_one_line_and_exit_status_1(run: Run, arguments: str, words: str) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "node",
        "nothing",
        "node show",
        "link create Quiron",
        "link create A B --bandwidth 10q",
        "link create A B --disjoint-paths 9",
        "link create A B --type x",
    ],
)
def test_wrong_usage_is_exit_status_2(run: Run, arguments: str) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


# Changes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "bps"), [("2500", 2500), ("10k", 10_000), ("1.5M", 1_500_000), ("10kb/s", 10_000)])
def test_a_link_is_made_with_a_rate_as_people_write_it(run: Run, given: str, bps: int) -> None:
    made = json.loads(run("link", "create", "Quiron", "Quinto", "--bandwidth", given, "-o", "json").stdout)
    assert (made["type"], made["status"], made["bandwidth_bps"]) == ("VIRT", "PENDING", bps)


def test_clients_are_named_that_share_key(run: Run) -> None:
    assert "client applications  qkd://x/a, qkd://x/b" in _lines(
        run("app", "share", KSID[:6], "qkd://x/a", "qkd://x/b").stdout
    )
    refused = run("app", "share", KSID, "nobody")
    assert refused.exit_code == 1 and "clients live at Quinto" in refused.stderr
    assert run("app", "share", KSID).exit_code == 2


def test_a_link_may_be_waited_for(run: Run, served: Served) -> None:
    identifier = "dddddddd-0000-4000-8000-000000000005"
    late = run("link", "create", "Quiron", "Quinto", "--type", "phys", "--id", identifier, "--wait", "0")
    assert late.exit_code == 1
    assert f"link {identifier} was created, but is PENDING after 0 s" in late.stderr
    served.network.activate(identifier)
    assert "ACTIVE" in run("link", "show", identifier).stdout


def test_a_link_is_deleted_without_a_question_where_nobody_can_answer(run: Run, served: Served) -> None:
    result = run("link", "delete", FIRST)
    assert (result.exit_code, result.stdout) == (0, f"Deleted PHYS link {FIRST} Quiron-Quijote.\n")
    assert FIRST[:8] not in run("link", "list").stdout


# The way to the controller ---------------------------------------------------------------------------------------------


def _invoke(arguments: list[str], **environment: str) -> Result:
    return CliRunner(env={"QKDCTL_NETWORK": None, **environment}).invoke(main, arguments)


def test_the_only_network_here_is_the_one(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nothing = _invoke(["node", "list"])
    assert nothing.exit_code == 1
    assert "qkd-network up" in nothing.stderr and str(tmp_path) in nothing.stderr
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "one").symlink_to(served.directory)
    assert _invoke(["node", "list"]).exit_code == 0
    (tmp_path / "run" / "two").symlink_to(served.directory)
    several = _invoke(["node", "list"])
    assert several.exit_code == 1
    assert "one, two" in several.stderr
    assert _invoke(["-n", "two", "node", "list"]).exit_code == 0
    assert _invoke(["node", "list"], QKDCTL_NETWORK="one").exit_code == 0


def test_no_descriptor_is_needed_with_url_ca_and_token(served: Served) -> None:
    here = served.directory
    trusted = ["--url", served.url, "--ca", str(here / "ca.pem"), "--token-file"]
    assert _invoke([*trusted, str(here / "token"), "node", "list"]).exit_code == 0
    assert "--token-file is missing" in _invoke(["--url", served.url, "node", "list"]).stderr
    (here / "wrong").write_text("wrong\n")
    refused = _invoke([*trusted, str(here / "wrong"), "node", "list"])
    assert refused.exit_code == 1
    assert f"does not accept the token of {here / 'wrong'}" in refused.stderr


def test_a_controller_of_another_authority_is_not_trusted(served: Served) -> None:
    result = _invoke(["-n", str(served.descriptor), "--ca", str(served.directory / "stranger.pem"), "node", "list"])
    assert result.exit_code == 1
    assert "is not trusted" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "https://127.0.0.1:1"], "is it running?"),
        (["--url", "http://127.0.0.1:1"], "not an https:// address"),
        (["--ca", "/nothing.pem"], "/nothing.pem"),
        (["--token-file", "/nothing"], "/nothing"),
        (["-n", "/nothing.json"], "/nothing.json"),
    ],
)
def test_what_is_wrong_with_the_way_is_said(served: Served, options: list[str], words: str) -> None:
    result = _invoke(["-n", str(served.descriptor), *options, "node", "list"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", '{"controller": {}}', '{"controller": null}'])
def test_a_file_that_is_no_descriptor_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    result = _invoke(["-n", str(path), "node", "list"])
    assert result.exit_code == 1
    assert f"{path} does not describe a network" in result.stderr


# The real program ------------------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "qswitch.controller.cli.main"]


def _environment(served: Served, **more: str) -> dict[str, str]:
    return {**os.environ, "QKDCTL_NETWORK": str(served.descriptor), "TERM": "xterm-256color", "COLUMNS": "160", **more}


def test_the_program_is_coloured_on_a_terminal_and_plain_elsewhere(served: Served) -> None:
    command = [*COMMAND, "link", "list"]
    plain = subprocess.run(command, env=_environment(served), capture_output=True, text=True, timeout=20, check=True)
    assert plain.stdout == LINK_LIST.removeprefix("\n")
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (40, 160))
    subprocess.run(command, env=_environment(served), stdout=inner, timeout=20, check=True)
    text = os.read(terminal, 65536).decode()
    os.close(terminal)
    os.close(inner)
    assert "\x1b[32mACTIVE" in text
    assert FIRST[:8] in text


def test_a_person_is_asked_before_a_link_goes(served: Served) -> None:
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "link", "delete", FIRST], env=_environment(served), stdin=inner, stdout=inner, stderr=inner
    )
    os.write(terminal, b"n\n")
    assert process.wait(20) == 1
    assert f"Delete PHYS link {FIRST} Quiron-Quijote, ACTIVE? [y/N]" in os.read(terminal, 65536).decode()
    os.close(terminal)
    os.close(inner)
    with served.client() as http:
        assert http.get(f"/v1/links/{FIRST}").status_code == 200


def test_following_goes_on_until_interrupted(served: Served) -> None:
    served.network.happen("first")
    with subprocess.Popen(
        [*COMMAND, "events", "--follow"], env=_environment(served), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        assert "first" in process.stdout.readline()
        served.network.happen("second")
        assert "second" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == ""
    assert served.network.left.wait(10)


def test_help_is_quick_and_loads_no_daemon(served: Served) -> None:
    code = (
        "import sys, qswitch.controller.cli.main as m\n"
        "heavy = {'httpx', 'rich', 'networkx', 'sysrepo', 'ncclient', 'asyncssh', 'fastapi', 'uvicorn', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    started = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], env=_environment(served), capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert time.monotonic() - started < 5


# Help and completion ---------------------------------------------------------------------------------------------------


def _commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = getattr(group, "commands", {})
    return [path, *(one for name, command in inner.items() for one in _commands(command, (*path, name)))]


@pytest.mark.parametrize("command", _commands(main), ids=" ".join)
def test_every_command_teaches_by_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    if command not in {("node",), ("link",), ("app",)}:
        assert "Examples:" in result.stdout or "First steps:" in result.stdout
        assert "qkdctl " + " ".join(command) in result.stdout


def _complete(served: Served, *words: str, **environment: str) -> list[str]:
    result = CliRunner(env=_environment(served, **environment)).invoke(
        main,
        [],
        prog_name="qkdctl",
        env={
            "_QKDCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("qkdctl", *words)),
            "COMP_CWORD": str(len(words)),
        },
    )
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["no"], ["node"]),
        (["node", "show", "qui"], ["Quiron", "Quijote", "Quinto"]),
        (["node", "show", "Quij"], ["Quijote"]),
        (["link", "create", "Quiron", "quin"], ["Quinto"]),
        (["path", "Quir"], ["Quiron"]),
        (["link", "show", "quiron-q"], ["Quiron-Quijote", "Quiron-Quinto"]),
        (["link", "delete", "bb"], [VIRTUAL]),
        (["app", "show", "3"], [KSID]),
        (["completion", "z"], ["zsh"]),
        (["-o", "js"], ["json"]),
    ],
)
def test_names_are_completed(served: Served, words: list[str], expected: list[str]) -> None:
    assert _complete(served, *words) == expected


def test_completion_is_silent_without_a_controller(served: Served) -> None:
    assert _complete(served, "node", "show", "Q", QKDCTL_URL="https://127.0.0.1:1") == []
    assert _complete(served, "node", "show", "Q", QKDCTL_NETWORK="/nothing") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_qkdctl(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"{shell}_complete" in result.stdout
    assert "_QKDCTL_COMPLETE" in result.stdout
