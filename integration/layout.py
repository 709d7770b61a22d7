"""What an emulated network consists of: nodes, spans, applications, read from a TOML file.

Ids follow from names, so that the same network has the same ids every time it comes up.
"""

import tomllib
import uuid
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from qswitch.agent.config import Engine

NAMESPACE = uuid.UUID("6e9a0c59-6f0b-5d3f-9a8c-8d1f2f3b7a10")


class LayoutError(Exception):
    """A network file that cannot be used; the text names the file and the rule."""


@dataclass(frozen=True, slots=True)
class Port:
    """One interface of a node, where a span ends."""

    node: str
    interface: int


@dataclass(frozen=True, slots=True)
class Span:
    """A fibre between two nodes, in kilometres and decibels."""

    a: Port
    b: Port
    length_km: float
    loss_db: float

    @property
    def name(self) -> str:
        return f"{self.a.node}-{self.b.node}".lower()


@dataclass(frozen=True, slots=True)
class Application:
    """An application identity: its certificate carries `sae_id` as common name and `uri` as alternative name."""

    sae_id: str
    node: str
    uri: str


@dataclass(frozen=True, slots=True)
class Layout:
    name: str
    title: str
    nodes: tuple[str, ...]
    spans: tuple[Span, ...]
    applications: tuple[Application, ...]
    engine: str = "auto"  # NETCONF server of the nodes
    call_home: str = ""  # "ssh" or "tls": nodes call the controller that way; else it dials them

    def qkdn_id(self, node: str) -> str:
        return _node_id(self.name, node)

    def ports(self, node: str) -> list[tuple[int, Span, str]]:
        """The node's interfaces as (number, span, end), end being "a" or "b"."""
        ends = [
            (end.interface, span, side)
            for span in self.spans
            for side, end in (("a", span.a), ("b", span.b))
            if end.node == node
        ]
        return sorted(ends, key=lambda one: one[0])


def _node_id(network: str, node: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{network}/{node}"))


def load(network: str) -> Layout:
    """Reads a network by the name of one that comes with the product, or by the path of a file of one's own."""
    shipped = files("qswitch.integration") / "networks"
    path = Path(network) if network.endswith(".toml") else Path(str(shipped / f"{network}.toml"))
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(Path(one.name).stem for one in shipped.iterdir() if one.name.endswith(".toml")))
        raise LayoutError(f"no network '{network}'; there are {known}, or give a file that ends in .toml") from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LayoutError(f"{path}: {error}") from error
    try:
        return _build(data)
    except (KeyError, TypeError, ValueError) as error:
        raise LayoutError(f"{path}: {error!r}") from error


def _build(data: dict[str, Any]) -> Layout:
    name, nodes = str(data["name"]), [str(one) for one in _list(data["nodes"])]
    used = dict.fromkeys(nodes, 0)
    spans = []
    for one in _list(data["spans"]):
        ends = []
        for node in one["ends"]:
            if node not in used:
                raise ValueError(f"span {one['ends']} ends at '{node}', which is no node of this network")
            used[node] += 1
            ends.append(Port(node, used[node]))
        a, b = ends
        spans.append(Span(a, b, float(one["length_km"]), float(one["loss_db"])))
    applications = tuple(
        Application(f"{node.lower()}-{number}", node, f"qkd://{_node_id(name, node)}/{node.lower()}-{number}")
        for node in nodes
        for number in range(1, int(data.get("applications_per_node", 1)) + 1)
    )
    return Layout(
        name, str(data.get("title", name)), tuple(nodes), tuple(spans), applications, _engine(data), _call_home(data)
    )


def _call_home(data: dict[str, Any]) -> str:
    transport = str(data.get("call_home", ""))
    if transport not in ("", "ssh", "tls"):
        raise ValueError(f"call_home '{transport}' must be ssh or tls")
    return transport


def _engine(data: dict[str, Any]) -> str:
    return str(Engine(data.get("engine", Engine.AUTO)))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} must be a list")
    return value
