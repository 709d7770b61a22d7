"""What people see of the API's values: pure functions from decoded JSON to tables and lines."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .grid import Grid, pairs
from .names import ends
from .text import NONE, ShortIds, address, bits, decibel, percent, rate

ARROW = " → "
Value = Mapping[str, Any]
Names = Mapping[str, str]
Parts = Iterable[Grid | str]


# Nodes ---------------------------------------------------------------------------------------------------------------


def nodes(values: list[Value]) -> Parts:
    short = ShortIds(one["qkdn_id"] for one in values if one["qkdn_id"])
    columns: tuple[str, ...] = ("NAME", "STATUS", "CONNECTED", ">INTERFACES", ">LINKS", ">APPS", "LOCATION", "ID", "PROBLEM")
    rows: tuple[tuple[str, ...], ...] = tuple(
        (
            one["name"],
            one["status"],
            "yes" if one["connected"] else "no",
            str(len(one["interfaces"])),
            str(len(one["links"])),
            str(len(one["apps"])),
            one["location"] or NONE,
            short(one["qkdn_id"]) if one["qkdn_id"] else NONE,
            one.get("problem") or "",
        )
        for one in values
    )
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    yield Grid(columns, rows, empty="The controller looks after no nodes.")


def node(value: Value, topology: Value) -> Parts:
    yield pairs(
        ("node", value["name"]),
        ("id", value["qkdn_id"]),
        ("status", value["status"]),
        ("connected", "yes" if value["connected"] else "no"),
        ("problem", value.get("problem")),
        ("location", value["location"]),
        ("version", value["version"]),
        ("NETCONF", address(value["netconf"])),
        ("LKMS", address(value["lkms"])),
        ("ETSI 004", address(value["etsi004"])),
        ("ETSI 014", value.get("etsi014_url")),
    )
    yield from ("", "Interfaces")
    yield interfaces(value["interfaces"])
    yield from ("", "Links")
    yield from links([one for one in topology["links"] if one["link"] in value["links"]])
    if value["apps"]:
        yield from ("", "Applications")
        yield from apps([one for one in topology["apps"] if one["ksid"] in value["apps"]])


def interfaces(values: list[Value]) -> Grid:
    columns = (">NUMBER", "STATUS", "ROLES", "TYPE", "MODEL", "DEVICE", ">PORT")
    rows = tuple(
        (
            str(one["qkdi_id"]),
            one["status"] or NONE,
            one["role_support"] or NONE,
            one["type"],
            one["model"],
            one["device"],
            NONE if one["port"] is None else str(one["port"]),
        )
        for one in values
    )
    return Grid(columns, rows, empty="none known")


# Links ---------------------------------------------------------------------------------------------------------------


def usable(link: Value) -> int | None:
    """Key that both ends can use: the lesser of what each says."""
    return min((one["usable_bits"] for one in link["ends"]), default=None)


def links(values: list[Value]) -> Parts:
    short = ShortIds(one["link"] for one in values)
    columns = ("LINK", "TYPE", "STATUS", "ENDS", ">HOPS", ">KEY RATE", ">DEMAND", ">USABLE KEY", ">QBER", ">LOSS", ">APPS")
    more = ("OVERLOADED", ">PATHS", "PROBLEM")
    rows = tuple(
        (
            short(one["link"]),
            one["type"],
            one["status"],
            ends(one),
            str(max(*(len(path) - 1 for path in _routes(one)), 1)),
            rate(one["skr_bps"]),
            rate(one["expected_consumption_bps"]),
            bits(usable(one)),
            percent(one["qber"]),
            decibel(one["attenuation_db"]),
            str(len(one["apps"])),
            "yes" if one.get("overloaded") else "no",
            str(one.get("disjoint_paths", 1)),
            one.get("problem") or "",
        )
        for one in values
    )
    usual = {"OVERLOADED": "no", ">PATHS": "1", "PROBLEM": ""}
    yield _without((*columns, *more), rows, usual, "There are no links.")


def _without(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...], usual: Mapping[str, str], empty: str) -> Grid:
    """A table without the columns of which all rows say the usual."""
    kept = [at for at, name in enumerate(columns) if any(row[at] != usual.get(name) for row in rows) or name not in usual]
    return Grid(tuple(columns[at] for at in kept), tuple(tuple(row[at] for at in kept) for row in rows), empty=empty)


def _routes(link: Value) -> list[list[str]]:
    """The routes of a link: one, or as many as it has node-disjoint paths."""
    return [one["route"] for one in link.get("paths") or (link,)]


def route(nodes: Iterable[str], names: Names) -> str:
    """`Quiron → Quijote → Quinto`; nodes that the controller does not know by name appear by id."""
    return ARROW.join(names.get(one, one) for one in nodes)


def link(value: Value, names: Names) -> Parts:
    yield pairs(
        ("link", value["link"]),
        ("type", value["type"]),
        ("status", value["status"]),
        ("problem", value.get("problem")),
        *_named_routes(value, names),
        ("interfaces", _interfaces(value)),
        ("key rate", rate(value["skr_bps"])),
        ("available", rate(value["eskr_bps"])),
        ("demand", rate(value["expected_consumption_bps"])),
        ("overloaded", "yes: more key is asked of it than it has" if value.get("overloaded") else None),
        ("bandwidth", _known(value["bandwidth_bps"], rate)),
        ("QBER", _known(value["qber"], percent)),
        ("loss", _known(value["attenuation_db"], decibel)),
        ("wavelength", value["wavelength"]),
        ("made for", value.get("purpose")),
        ("key streams", ", ".join(value["apps"])),
    )
    yield from ("", "Key stores")
    yield key_stores(value["ends"])
    if value["relay"]:
        yield from ("", "Relay: one-time pad spent at each hop, key held on the way")
        yield relay(value, names)
    for at, path in enumerate(value.get("paths") or (), 1):
        yield from ("", f"Path {at} is {path['status']}: its share of the key, one-time pad spent at each hop")
        yield relay(path, names)


def _named_routes(value: Value, names: Names) -> list[tuple[str, str]]:
    routes = [route(one, names) for one in _routes(value)]
    return [("route" if len(routes) == 1 else f"path {at}", one) for at, one in enumerate(routes, 1)]


def _known(value: Any, form: Any) -> str | None:
    return None if value is None else form(value)


def _interfaces(value: Value) -> str | None:
    both = [one for one in (value["source"], value["destination"]) if one.get("interface") is not None]
    return ", ".join(f"{one['name']} {one['interface']}" for one in both) or None


def key_stores(values: list[Value]) -> Grid:
    columns = ("NODE", "STATUS", ">STORED", ">USABLE", ">GENERATED", ">CONSUMED", ">BURNT")
    amounts = ("stored_bits", "usable_bits", "generated_bits", "consumed_bits", "burnt_bits")
    rows = tuple((one["name"], one["status"] or NONE, *(bits(one[amount]) for amount in amounts)) for one in values)
    return Grid(columns, rows, empty="neither end is known yet")


def relay(value: Value, names: Names) -> Grid:
    """One row per node of the route. `PER BIT` is pad spent for each bit of key passed on: 1 and a little for tags."""
    columns = ("NODE", "NEXT HOP", "OVER LINK", ">RELAYED", ">PAD SPENT", ">PER BIT", ">HELD", ">FAILURES")
    short = ShortIds(one["link"] for one in value["relay"] if one.get("link"))
    following = dict(zip(value["route"], value["route"][1:], strict=False))
    rows = tuple(
        (
            one["name"],
            names.get(following.get(one["node"], ""), NONE),
            short(one["link"]) if one.get("link") else NONE,
            bits(one["relayed_bits"]),
            bits(one["pad_bits"]),
            f"{one['pad_bits'] / one['relayed_bits']:.4f}" if one["relayed_bits"] and one["pad_bits"] else NONE,
            bits(one["held_bits"]),
            str(one["failures"]),
        )
        for one in value["relay"]
    )
    return Grid(columns, rows)


# Applications --------------------------------------------------------------------------------------------------------


def apps(values: list[Value]) -> Parts:
    short = ShortIds(one["ksid"] for one in values)
    columns = ("KEY STREAM", "STATUS", "NODES", ">HOPS", ">CONSUMED", "SERVER APPLICATION", "CLIENT APPLICATIONS")
    rows = tuple(
        (
            short(one["ksid"]),
            one["status"] or NONE,
            _between(one),
            str(len(one["route"]) - 1) if one["route"] else NONE,
            bits(one["consumed_bits"]),
            _short_uri(one, one["server_app_id"]) or NONE,
            ", ".join(_short_uri(one, uri) for uri in one["client_app_ids"]) or NONE,
        )
        for one in values
    )
    yield Grid(columns, rows, empty="No application has a key stream.")


def _short_uri(app: Value, uri: str | None) -> str:
    """`quiron-1` of `qkd://NODE/quiron-1` where NODE is one of the stream's two, which stand beside it; else all of it."""
    nodes = {end["node"] for end in (app["source"], app["destination"]) if end}
    parts = urlsplit(uri or "")
    return parts.path.strip("/") if parts.scheme == "qkd" and parts.netloc in nodes else uri or ""


def _between(app: Value) -> str:
    destination = app["destination"]
    return f"{app['source']['name']}-{destination['name'] if destination else '?'}"


def app(value: Value, names: Names) -> Parts:
    qos = value["qos"]
    yield pairs(
        ("key stream", value["ksid"]),
        ("status", value["status"]),
        ("server application", value["server_app_id"]),
        ("client applications", ", ".join(value["client_app_ids"])),
        ("nodes", _between(value)),
        ("route", route(value["route"], names) or "none at present"),
        ("disjoint paths", str(paths) if (paths := value.get("disjoint_paths", 1)) > 1 else None),
        ("links", ", ".join(value["links"])),
        ("consumed", bits(value["consumed_bits"])),
        ("priority", str(value.get("priority", 0))),
        ("at most", _known(qos.get("max_bandwidth_bps"), rate)),
        ("at least", _known(qos.get("min_bandwidth_bps"), rate)),
        ("jitter", _known(qos.get("jitter_ms"), lambda one: f"{one} ms")),
        ("deviation of the rate", _known(qos.get("jitter_bps"), rate)),
        ("time limit of a call", _known(qos.get("timeout_ms"), lambda one: f"{one} ms")),
        ("time to live", _known(qos.get("ttl_seconds"), lambda one: f"{one} s")),
    )


# The network ---------------------------------------------------------------------------------------------------------


def path(value: Value) -> Parts:
    yield from _one_path(value)
    for other in value.get("others") or ():
        yield ""
        yield from _one_path(other)


def _one_path(value: Value) -> Parts:
    short = ShortIds(value["links"])
    yield ARROW.join(value["names"])
    yield f"free on all of it: {rate(value['free_bps'])}"
    hops = zip(value["names"], value["names"][1:], value["links"], strict=False)
    yield Grid(("FROM", "TO", "OVER LINK"), tuple((here, there, short(over)) for here, there, over in hops))


def health(value: Value) -> Parts:
    yield pairs(
        ("status", value["status"]),
        ("version", value["version"]),
        ("nodes", f"{value['connected']} of {value['nodes']} connected"),
        ("links", f"{value['active_links']} of {value['links']} active"),
        ("key streams", str(value["apps"])),
    )


def topology(value: Value, branches: tuple[str, str] = ("├─ ", "└─ ")) -> Parts:
    """Every node with its physical links below it, then the virtual links with their routes."""
    physical = [one for one in value["links"] if one["type"] == "PHYS"]
    rows: list[tuple[str, ...]] = []
    for one in value["nodes"]:
        rows.append((one["name"], one["status"], *("",) * 5))
        rows.extend(_neighbours(one, physical, branches))
    columns = ("NODE", "STATUS", ">KEY RATE", ">USABLE KEY", ">QBER", ">LOSS", ">KEY STREAMS")
    yield Grid(columns, tuple(rows), empty="The controller looks after no nodes.")
    virtual = [one for one in value["links"] if one["type"] != "PHYS"]
    if virtual:
        names = {one["qkdn_id"]: one["name"] for one in value["nodes"] if one["qkdn_id"]}
        yield from ("", "Virtual links")
        yield _virtual(virtual, names)


def _neighbours(node: Value, physical: list[Value], branches: tuple[str, str]) -> list[tuple[str, ...]]:
    here = [(_other_end(one, node["qkdn_id"]), one) for one in physical if one["link"] in node["links"]]
    here.sort(key=lambda pair: (pair[0], pair[1]["link"]))
    return [
        (
            branches[at == len(here) - 1] + neighbour,
            one["status"],
            rate(one["skr_bps"]),
            bits(usable(one)),
            percent(one["qber"]),
            decibel(one["attenuation_db"]),
            str(len(one["apps"])),
        )
        for at, (neighbour, one) in enumerate(here)
    ]


def _other_end(link: Value, node: str) -> str:
    end = link["destination"] if link["source"]["node"] == node else link["source"]
    return str(end["name"])


def _virtual(values: list[Value], names: Names) -> Grid:
    short = ShortIds(one["link"] for one in values)
    rows = tuple(
        (
            short(one["link"]),
            one["status"],
            " with ".join(route(each, names) for each in _routes(one)),
            rate(one["skr_bps"]),
            bits(usable(one)),
            str(len(one["apps"])),
        )
        for one in values
    )
    return Grid(("LINK", "STATUS", "ROUTE", ">KEY RATE", ">USABLE KEY", ">KEY STREAMS"), rows)


# Events --------------------------------------------------------------------------------------------------------------


def event(value: Value) -> str:
    """One line: when, where, what, and the ids it is about."""
    about = [value[name] for name in ("link", "ksid") if value.get(name)]
    tail = f"  [{', '.join(about)}]" if about else ""
    return (
        f"{value['time'][:19].replace('T', ' ')}  {value['node'] or NONE:<12}  {value['type']:<20}  {value['message']}{tail}"
    )
