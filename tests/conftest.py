"""Which NETCONF server the node and network tests run on: every engine that is installed, or those that --engines names.

A test, or a fixture it uses, takes `engine`; what only one of them does is marked `engine(NAME, reason=…)`.
"""

import functools
import random
import signal

import pytest

from qswitch.agent.config import Engine
from qswitch.agent.errors import ConfigurationError
from qswitch.agent.netconf.engine import choose

ENGINES = (Engine.BUILTIN, Engine.NETOPEER2)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="of campaigns; default: another one each time")
    parser.addoption(
        "--engines",
        metavar="NAMES",
        help=f"NETCONF engines to test, of {','.join(ENGINES)}; default: each that is installed",
    )


def pytest_configure(config: pytest.Config) -> None:
    # What a shell starts in the background ignores it, and all that is started by that does, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "engine(name, reason): of the NETCONF engines, only this one does what is tested")
    named = config.getoption("--engines")
    if unknown := sorted(set(named.split(",")) - set(ENGINES)) if named else []:
        raise pytest.UsageError(f"--engines: no engine {', '.join(unknown)}; there are {', '.join(ENGINES)}")
    if named and Engine.NETOPEER2 in named.split(","):
        try:
            choose(Engine.NETOPEER2)
        except ConfigurationError as error:
            raise pytest.UsageError(f"--engines: {error}") from error


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What a campaign draws its luck from; shown when a test fails."""
    given = request.config.getoption("--seed")
    found = random.getrandbits(32) if given is None else int(given)
    print(f"--seed {found}")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--engines")
    engines = chosen.split(",") if chosen else [one for one in ENGINES if _installed(one)]
    mark = metafunc.definition.get_closest_marker("engine")
    if mark is not None and mark.args[0] not in engines:
        reason = f"{mark.args[0]} is not under test here ({mark.kwargs['reason']})"
        metafunc.parametrize("engine", [pytest.param(mark.args[0], marks=pytest.mark.skip(reason=reason))], scope="session")
        return
    metafunc.parametrize("engine", [str(one) for one in engines if mark is None or one == mark.args[0]], scope="session")


@functools.cache
def _installed(engine: Engine) -> bool:
    """Here, and fit to run with the sysrepo that is here."""
    return engine in (Engine.BUILTIN, choose(Engine.AUTO))
