"""The configuration file: what is read, and what is refused with the place and the rule."""

from pathlib import Path

import pytest

from qswitch.controller.config import FibreConfig, Port, load
from qswitch.controller.errors import ConfigurationError
from qswitch.controller.model import Endpoint, InterfaceId

GOOD = """
[controller]
state_dir = "state"
port = 8443
certificate = "c.pem"
private_key = "c.key"
token_file = "token"

[[nodes]]
name = "A"
host = "127.0.0.1"
port = 8300
username = "controller"
key = "../users/controller"
host_key = "ssh-ed25519 AAAA host"

[[nodes]]
name = "B"
host = "b.example"
username = "controller"
key = "key"
host_key = "b.pub"

[[fibres]]
name = "a-b"
a = "A:1"
b = "B:2"
attenuation_db = 8
wavelength = "1550"
"""


def written(folder: Path, text: str) -> Path:
    (folder / "b.pub").write_text("ssh-ed25519 BBBB b\n")
    file = folder / "controller.toml"
    file.write_text(text)
    return file


def test_a_good_file(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    assert config.listen == Endpoint("127.0.0.1", 8443)
    assert config.state_dir == tmp_path / "state"
    assert config.nodes[0].key == tmp_path / "../users/controller"
    assert [one.host_key for one in config.nodes] == ["ssh-ed25519 AAAA host", "ssh-ed25519 BBBB b"]
    assert config.nodes[1].netconf == Endpoint("b.example", 830)
    assert config.fibres == (FibreConfig("a-b", Port("A", InterfaceId(1)), Port("B", InterfaceId(2)), 8.0, "1550"),)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("port = 8443", "", ["[controller]", "port", "missing"]),
        ("port = 8443", 'port = "x"', ["[controller]", "port", "int"]),
        ("port = 8443", "port = 8443\ncolour = 1", ["[controller]", "colour"]),
        ('b = "B:2"', 'b = "C:2"', ["[fibres]", "'C'"]),
        ('b = "B:2"', 'b = "B"', ["[fibres]", "b"]),
        ('b = "B:2"', 'b = "A:1"', ["[[fibres]]", "A:1"]),
        ('name = "B"', 'name = "A"', ["[[nodes]]", "A"]),
        ('"b.pub"', '"none.pub"', ["[nodes]", "host_key"]),
        ("[controller]", "[controller", ["no TOML"]),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, GOOD.replace(old, new)))
    assert all(word in str(refused.value) for word in ["controller.toml", *words])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load(tmp_path / "none.toml")
