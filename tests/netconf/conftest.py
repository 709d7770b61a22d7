"""One node for the whole suite: a real repository with module `conformance`, one serving process for each engine.

`front` is the node, `client` a session of user `controller` (who may do everything). Module `conformance` is empty in every
datastore when a test starts. `behind(command, argument)` has the process behind it do something (conformance_side.py).
Users with a key: controller, monitor, operator, guest; NACM is on, with the groups of netconf_front.NACM.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import netconf_front
import pytest
import rfc
from differences import difference
from netconf_front import NACM, Client, Front, serving
from wire import Behind

from qswitch import yang

MODULE = Path(__file__).with_name("conformance.yang")
USERS = ("controller", "monitor", "operator", "guest")


@pytest.fixture(scope="session")
def front(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A prepared repository and a serving process."""
    with serving(tmp_path_factory.mktemp("conformance"), USERS, _install, engine=engine) as front:
        yield front


def _install(front: Front) -> None:
    """A node's modules and the suite's own."""
    netconf_front.install(front)
    command = ["sysrepoctl", "-i", str(MODULE), "-s", str(yang.SEARCH[-1])]
    done = subprocess.run(command, check=False, env=front.environment, capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def behind(front: Front) -> Iterator[Behind]:
    """The process behind module `conformance`: serves its operations, and does to the repository what a test asks."""
    program = Path(netconf_front.__file__).with_name("conformance_side.py")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, str(program)], env=front.environment, text=True, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    given, answers = process.stdin, process.stdout

    def do(command: str, argument: str = "") -> None:
        given.write(json.dumps([command, argument]) + "\n")
        given.flush()
        problem = json.loads(answers.readline())
        assert problem is None, problem

    do("ready")
    yield do
    process.communicate(timeout=10)


@pytest.fixture(autouse=True)
def _clean(behind: Behind) -> Iterator[None]:
    yield
    behind("clear")


@pytest.fixture
def access(behind: Behind) -> Iterator[Callable[[str], None]]:
    """Replaces the access rules (XML or JSON); the suite's own come back after the test."""
    yield lambda rules: behind("replace", rules)
    behind("replace", NACM)


@pytest.fixture
async def client(front: Front) -> AsyncIterator[Client]:
    async with front.connect() as client:
        yield client


# The list of sentences -----------------------------------------------------------------------------------------------

_RESULTS: list[tuple[rfc.Sentence, str, str]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rfc-report", action="store_true", help="count the sentences that cases show, for each RFC")
    parser.addoption("--rfc-list", metavar="FILE", help="write the list of them, with the outcome of each")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rfc(number, section, sentence): the sentence that the case shows")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expects to fail what the table of differences says."""
    here = Path(__file__).parent
    for item in items:
        engine = _engine(item)
        if here in item.path.parents and (row := difference(engine, _case(item, engine))):
            item.add_marker(pytest.mark.xfail(strict=True, reason=f"{row.does} ({row.verdict})"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: pytest.TestReport = yield  # type: ignore[assignment]
    if outcome.when == "call" or outcome.outcome != "passed":
        how = "differs" if hasattr(outcome, "wasxfail") else outcome.outcome
        _RESULTS.extend((one, item.name, how) for one in rfc.of_item(item))
    return outcome  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--rfc-report", default=False):
        for line in rfc.totals(_RESULTS):
            terminalreporter.write_line(line)
    if wanted := config.getoption("--rfc-list", default=None):
        Path(wanted).write_text("\n".join(rfc.report(_RESULTS)) + "\n", encoding="utf-8")


def _engine(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    return str(call.params.get("engine", "")) if call else ""


def _case(item: pytest.Item, engine: str) -> str:
    """The name of a test without its engine."""
    return item.name.replace(f"[{engine}]", "").replace(f"{engine}-", "").replace(f"-{engine}]", "]")
