"""The configuration file: what is read, and what is refused with the place and the rule."""

from pathlib import Path

import pytest

from qswitch.controller.config import CallHomeConfig, FibreConfig, Port, TlsAccess, load
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
        ("port = 8443", "port = 8443\ndisjoint_paths = 9", ["[controller]", "disjoint_paths", "from 1 to 8"]),
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


HOME = """
[call_home]
ssh_address = "0.0.0.0"
tls_address = "::"
tls_port = 14335
certificate = "home.pem"
private_key = "home.key"
ca = "ca.pem"

[[nodes]]
name = "C"
connect = "call-home"
username = "controller"
key = "key"
host_key = "ssh-ed25519 CCCC c"

[[nodes]]
name = "D"
connect = "call-home"
transport = "tls"
server_name = "urn:uuid:d"

[[nodes]]
name = "E"
transport = "tls"
host = "e.example"
certificate = "e.pem"
private_key = "e.key"
fingerprint = "SHA256:{pin}"

[[nodes]]
name = "F"
transport = "tls"
host = "f.example"
certificate = "e.pem"
private_key = "e.key"
ca = "ca.pem"
""".format(pin=":".join(["AB"] * 32))


def test_nodes_that_call_and_nodes_over_tls(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD + HOME))
    home = config.call_home
    own, e = (tmp_path / "home.pem", tmp_path / "home.key"), (tmp_path / "e.pem", tmp_path / "e.key")
    assert home == CallHomeConfig(Endpoint("0.0.0.0", 4334), Endpoint("::", 14335), *own, tmp_path / "ca.pem")
    c, d, e_node, f = config.nodes[2:]
    assert (c.calls, c.tls, c.username) == (True, None, "controller")
    assert (d.calls, d.tls) == (True, TlsAccess(*own, tmp_path / "ca.pem", "urn:uuid:d"))
    assert (e_node.calls, e_node.netconf) == (False, Endpoint("e.example", 6513))
    assert e_node.tls == TlsAccess(*e, fingerprint="ab" * 32)
    assert f.tls == TlsAccess(*e, tmp_path / "ca.pem", "f.example")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('ssh_address = "0.0.0.0"', "", ["[nodes] connect", "ssh_address in [call_home]"]),
        ('tls_address = "::"', "", ["[nodes] connect", "tls_address in [call_home]"]),
        ('certificate = "home.pem"', "", ["[call_home] certificate", "missing"]),
        ('connect = "call-home"', 'connect = "wait"', ["[nodes] connect", "dial, call-home"]),
        ('transport = "tls"', 'transport = "udp"', ["[nodes] transport", "ssh, tls"]),
        ("SHA256:AB", "SHA256:A", ["[nodes] fingerprint", "64 hexadecimal"]),
        ('server_name = "urn:uuid:d"', "", ["[nodes] server_name", "is missing"]),
        ('server_name = "urn:uuid:d"', 'host = "d"\nserver_name = "d"', ["[nodes]", "unknown members: host"]),
        ('server_name = "urn:uuid:d"', 'certificate = "d"\nserver_name = "d"', ["[nodes]", "unknown members: certificate"]),
        ('fingerprint = "SHA256', '# "', ["[nodes] fingerprint", "so is ca"]),
        ('transport = "tls"', 'transport = "tls"\nhost_key = "x y"', ["[nodes]", "unknown members: host_key"]),
    ],
)
def test_what_is_wrong_with_them(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, GOOD + HOME.replace(old, new, 1)))
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    "twin",
    [
        'username = "other"\nkey = "key"\nhost_key = "ssh-ed25519 CCCC other comment"',
        'transport = "tls"\nserver_name = "urn:uuid:d"',
    ],
)
def test_no_two_that_call_may_look_alike(tmp_path: Path, twin: str) -> None:
    with pytest.raises(ConfigurationError, match="used twice"):
        load(written(tmp_path, f'{GOOD}{HOME}\n[[nodes]]\nname = "G"\nconnect = "call-home"\n{twin}\n'))
