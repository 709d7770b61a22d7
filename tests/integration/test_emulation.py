"""A network is known by where it lies, however that is written."""

import tomllib
from pathlib import Path

import pytest

from qswitch.agent.config import load_front
from qswitch.integration import configure, layout
from qswitch.integration.emulation import Emulation


def test_networks_in_two_folders_share_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        emulation = Emulation.create(layout.load("triangle"), Path("run/triangle"))
        config = tomllib.loads((emulation.home("Alpha") / "agent.toml").read_text())
        prefixes.append(config["node"]["shm_prefix"])
        assert prefixes[-1] == configure.shm_prefix(emulation.directory, "Alpha"), "what is removed is not what is made"
    assert len(set(prefixes)) == 2


@pytest.mark.parametrize(
    ("named", "asked", "runs"), [("", None, "auto"), ("builtin", None, "builtin"), ("builtin", "netopeer2", "netopeer2")]
)
def test_nodes_run_the_engine_of_the_network_unless_another_is_asked_for(
    tmp_path: Path, named: str, asked: str | None, runs: str
) -> None:
    file = tmp_path / "one.toml"
    file.write_text('name = "one"\nnodes = ["A"]\nspans = []\n' + (f'engine = "{named}"\n' if named else ""))
    emulation = Emulation.create(layout.load(str(file)), tmp_path / "run", asked)
    assert load_front(emulation.home("A") / "agent.toml").engine == runs
