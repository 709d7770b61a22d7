"""Writes what the daemons of an emulated network read: their configuration files, keys and certificates.

Everything lies below one directory, one folder a node, and every path in a file is relative to that file.
"""

import hashlib
import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qswitch.agent.devices.fibre import Fibre

from .identities import Authority, write_private, write_ssh_key
from .layout import Layout

HOST = "127.0.0.1"
USERS = ("controller", "operator", "monitor")
MODELS = ("Simulated DV-QKD", "DV-QKD")


@dataclass(frozen=True, slots=True)
class Ports:
    netconf: int
    lkms: int
    etsi004: int
    etsi014: int


def free_ports(count: int) -> list[int]:
    """Distinct free TCP ports of the loopback host; all are held until all are known."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def shm_prefix(directory: Path, node: str) -> str:
    """Names the node's shared memory; two networks in two directories never share it."""
    return "qs" + hashlib.sha256(str(directory / node.lower()).encode()).hexdigest()[:10]


def write(layout: Layout, directory: Path, engine: str = "auto") -> dict[str, Any]:
    """Writes all files of the network; returns its descriptor, still without process ids."""
    directory.mkdir(parents=True)
    numbers = iter(free_ports(4 * len(layout.nodes) + 2))
    home = next(numbers)  # where nodes call, if they do
    ports = {node: Ports(next(numbers), next(numbers), next(numbers), next(numbers)) for node in layout.nodes}
    authority = Authority(f"throw-away authority of {layout.name}")
    authority.write(directory / "ca.pem")
    _write_fibres(layout, directory)
    users = {}
    (directory / "users").mkdir()
    for user in USERS:
        users[user] = write_ssh_key(directory / "users" / user)
    nodes = [_write_node(layout, directory, authority, node, ports[node], users, engine, home) for node in layout.nodes]
    controller = _write_controller(layout, directory, authority, next(numbers), nodes, home)
    return {
        "name": layout.name,
        "title": layout.title,
        "controller": controller,
        "ca": "ca.pem",
        "nodes": nodes,
        "apps": [_write_application(authority, directory, one) for one in layout.applications],
        "spans": [{"name": one.name, "ends": [one.a.node, one.b.node], "fibre": _fibre(one.name)} for one in layout.spans],
    }


def _fibre(span: str) -> str:
    return f"fibres/{span}.json"


def _write_fibres(layout: Layout, directory: Path) -> None:
    (directory / "fibres").mkdir()
    for span in layout.spans:
        Fibre(name=span.name, length_km=span.length_km, loss_db=span.loss_db).save(directory / _fibre(span.name))


def _write_node(
    layout: Layout,
    directory: Path,
    authority: Authority,
    node: str,
    ports: Ports,
    users: dict[str, str],
    engine: str,
    home_port: int,
) -> dict[str, Any]:
    folder, identity = node.lower(), layout.qkdn_id(node)
    home = directory / folder
    home.mkdir()
    host_key = write_ssh_key(home / "host_key")
    authority.issue(home, "node", node, (f"urn:uuid:{identity}",), local=True)
    tls = {"certificate": "node.pem", "private_key": "node.key", "ca": "../ca.pem"}
    sections: dict[str, dict[str, Any]] = {
        "node": {
            "qkdn_id": identity,
            "name": node,
            "location": layout.title,
            "repository": "sysrepo",
            "shm_prefix": shm_prefix(directory, node),
        },
        "netconf": {"address": HOST, "port": ports.netconf, "host_key": "host_key", "engine": engine},
        **({"netconf.tls": {**tls, "names": "common-name"}} if layout.call_home == "tls" else {}),
        "lkms": {"address": HOST, "port": ports.lkms, **tls, "ledger": True},
        "etsi004": {"address": HOST, "port": ports.etsi004, **tls},
        "etsi014": {"address": HOST, "port": ports.etsi014, **tls},
        "etsi014.saes": {one.sae_id: one.uri for one in layout.applications},
    }
    user_tables = [{"name": user, "public_key": key, "role": user} for user, key in users.items()]
    calls = {"name": "controller", "address": HOST, "port": home_port, "transport": layout.call_home}
    text = _toml(sections) + _tables("netconf.users", user_tables) + _tables("interfaces", _interfaces(layout, node))
    text += _tables("netconf.call_home", [calls] if layout.call_home else [])
    (home / "agent.toml").write_text(text, encoding="utf-8")
    return _described(node, identity, ports, host_key)


def _interfaces(layout: Layout, node: str) -> list[dict[str, Any]]:
    """Of agent.toml: one device at each end of a span."""
    return [
        {
            "qkdi_id": number,
            "plugin": "simulated",
            "device": f"{node.lower()}-qkd-{number}",
            "port": 1,
            "options": {"fibre": f"../{_fibre(span.name)}", "end": end},
        }
        for number, span, end in layout.ports(node)
    ]


def _described(node: str, identity: str, ports: Ports, host_key: str) -> dict[str, Any]:
    """A node's part of the descriptor."""
    return {
        "name": node,
        "qkdn_id": identity,
        "netconf": {
            "host": HOST,
            "port": ports.netconf,
            "username": "controller",
            "key": "users/controller",
            "host_key": host_key,
        },
        "etsi004": {"host": HOST, "port": ports.etsi004},
        "etsi014": {"url": f"https://{HOST}:{ports.etsi014}", "kme_id": identity},
        "pids": {},
        "log": f"{node.lower()}/agent.log",
        "state_dir": node.lower(),
    }


def _write_controller(
    layout: Layout, directory: Path, authority: Authority, port: int, nodes: list[dict[str, Any]], home_port: int
) -> dict[str, Any]:
    home = directory / "controller"
    home.mkdir()
    authority.issue(home, "controller", "controller", (), local=True)
    write_private(home / "token", secrets.token_urlsafe(32).encode() + b"\n")
    controller = {
        "state_dir": "state",
        "address": HOST,
        "port": port,
        "certificate": "controller.pem",
        "private_key": "controller.key",
        "token_file": "token",
        "auto_links": True,
    }
    inventory = [{"name": node["name"], **_way(layout, node)} for node in nodes]
    fibres = [
        {
            "name": span.name,
            "a": f"{span.a.node}:{span.a.interface}",
            "b": f"{span.b.node}:{span.b.interface}",
            "attenuation_db": span.loss_db,
            "wavelength": "1550",
            "length_km": span.length_km,
        }
        for span in layout.spans
    ]
    sections = {"controller": controller, **_home(layout, home_port)}
    text = _toml(sections) + _tables("nodes", inventory) + _tables("fibres", fibres)
    (home / "controller.toml").write_text(text, encoding="utf-8")
    return {
        "url": f"https://{HOST}:{port}",
        "ca": "ca.pem",
        "token_file": "controller/token",
        "pids": {},
        "log": "controller/controller.log",
    }


def _way(layout: Layout, node: dict[str, Any]) -> dict[str, Any]:
    """How the controller comes by a node."""
    netconf = node["netconf"]
    by_ssh = {"username": "controller", "key": "../users/controller", "host_key": netconf["host_key"]}
    match layout.call_home:
        case "tls":
            return {"connect": "call-home", "transport": "tls", "server_name": f"urn:uuid:{node['qkdn_id']}"}
        case "ssh":
            return {"connect": "call-home", **by_ssh}
        case _:
            return {"host": netconf["host"], "port": netconf["port"], **by_ssh}


def _home(layout: Layout, port: int) -> dict[str, dict[str, Any]]:
    """Where nodes call the controller, if they do."""
    transport = layout.call_home
    own = {"certificate": "controller.pem", "private_key": "controller.key", "ca": "../ca.pem"} if transport == "tls" else {}
    return {"call_home": {f"{transport}_address": HOST, f"{transport}_port": port, **own}} if transport else {}


def _write_application(authority: Authority, directory: Path, application: Any) -> dict[str, Any]:
    (directory / "apps").mkdir(exist_ok=True)
    authority.issue(directory / "apps", application.sae_id, application.sae_id, (application.uri,), local=False)
    return {
        "name": application.sae_id,
        "sae_id": application.sae_id,
        "uri": application.uri,
        "node": application.node,
        "cert": f"apps/{application.sae_id}.pem",
        "key": f"apps/{application.sae_id}.key",
    }


def _toml(sections: dict[str, dict[str, Any]]) -> str:
    return "".join(f"[{name}]\n{_members(values)}\n" for name, values in sections.items())


def _tables(name: str, rows: list[dict[str, Any]]) -> str:
    return "".join(f"[[{name}]]\n{_members(row)}\n" for row in rows)


def _members(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: Any) -> str:
    """Strings, numbers and truth values are written alike in JSON and TOML; a table in one line is not."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)
