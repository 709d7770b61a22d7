"""What people see of checks of nodes: pure functions from decoded JSON to tables and lines."""

from collections.abc import Iterable

from .grid import Grid, pairs
from .text import NONE, address
from .views import Parts, Value

ALLOWED = {True: "yes", False: "no", None: "?"}


def nodes(values: list[Value]) -> Parts:
    """One line a node, then what is wrong with each that is not well."""
    rows = tuple(
        (
            one["node"],
            "yes" if one["well"] else "no",
            _way(one),
            duration(sum(step["seconds"] for step in one["steps"])) if one["steps"] else NONE,
            duration(one["round_trip"]["median"]) if one["round_trip"] else NONE,
            _ahead(one["clock"]) or NONE,
            _about(one["findings"]),
        )
        for one in values
    )
    columns = ("NODE", "WELL", "WAY", ">CONNECT", ">ROUND TRIP", ">CLOCK", "FINDINGS")
    yield Grid(columns, rows, empty="The controller looks after no nodes.")
    for one in values:
        if one["findings"]:
            yield from ("", one["node"])
            yield from findings(one["findings"])


def node(value: Value) -> Parts:
    yield pairs(
        ("node", value["node"]),
        ("well", "yes" if value["well"] else "no"),
        ("address", address(value) if value["host"] else "not known before it calls"),
        ("way", f"{_way(value)}: {value['way']}"),
        ("steps", ", ".join(f"{one['name']} {duration(one['seconds'])}" for one in value["steps"])),
        ("connect", duration(sum(one["seconds"] for one in value["steps"])) if value["steps"] else None),
        ("round trip", _round_trip(value)),
        ("clock", _clock(value)),
    )
    if value["findings"]:
        yield ""
        yield from findings(value["findings"])
    if value["ssh"]:
        yield from ("", "SSH")
        yield ssh(value["ssh"])
        if value["ssh"]["offered"]:
            yield from ("", "Offered by the node")
            yield offered(value["ssh"]["offered"])
    if value["tls"]:
        yield from ("", "TLS")
        yield tls(value["tls"])
    if value["netconf"]:
        yield from ("", "NETCONF")
        yield pairs(("version", value["netconf"]), ("session", value["session_id"]))
        yield Grid(
            ("CAPABILITY", "OFFERED", "MEANING"),
            tuple((one["name"], "yes" if one["offered"] else "no", one["words"]) for one in value["capabilities"]),
        )
        yield from (f"and {one}" for one in value["other_capabilities"])
    if value["modules"]:
        yield from ("", f"Modules that the controller needs (the node has {value['other_modules']} others)")
        rows = tuple((one["name"], one["revision"] or NONE, one["needed"], one["words"]) for one in value["modules"])
        yield Grid(("MODULE", "REVISION", "NEEDED", "MEANING"), rows)
    if value["rights"]:
        yield from ("", "Rights of this user")
        tried = tuple((one["name"], ALLOWED[one["allowed"]], one["how"]) for one in value["rights"])
        yield Grid(("OPERATION", "ALLOWED", "FOUND OUT BY"), tried)


def findings(values: Iterable[Value]) -> Parts:
    """What is so, and below it what to do."""
    for one in values:
        yield f"{one['level']}: {one['about']}: {one['text']}"
        if one["advice"]:
            yield f"       do: {one['advice']}"


def ssh(value: Value) -> Grid:
    shown, expected = value["host_key"], value["configured_host_key"]
    match = "the configured one" if shown == expected else f"NOT the configured one, {expected}"
    return pairs(
        ("server", value["software"]),
        ("host key", f"{value['host_key_type']} {shown}: {match}" if shown else None),
        ("key exchange", value["key_exchange"]),
        ("cipher", value["cipher"]),
        ("MAC", value["mac"]),
        ("compression", value["compression"]),
        ("user", value["user"]),
        ("login", value["authentication"]),
    )


def offered(value: Value) -> Grid:
    """By kind; both directions in one line where they are alike."""
    rows: list[tuple[str, str]] = []
    for kind, names in value.items():
        short = kind.partition(" to ")[0].partition(" from ")[0]
        if names == value.get(f"{short} to the node") == value.get(f"{short} from the node"):
            kind = short
        if (row := (kind, " ".join(names) or NONE)) not in rows:
            rows.append(row)
    return pairs(*rows)


def tls(value: Value) -> Grid:
    return pairs(
        ("version", value["version"]),
        ("cipher suite", value["cipher_suite"]),
        ("certificate", value["subject"]),
        ("names", ", ".join(value["names"])),
        ("issuer", value["issuer"]),
        ("valid", f"{value['not_before']} to {value['not_after']}" if value["not_after"] else None),
        ("SHA-256", value["fingerprint"]),
        ("configured", value["configured"]),
    )


def duration(seconds: float) -> str:
    """`1.2 ms`, `0.53 s`."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _way(value: Value) -> str:
    return f"{value['transport'].upper()}, {'node calls' if value['connect'] == 'call-home' else 'dialled'}"


def _round_trip(value: Value) -> str | None:
    found = value["round_trip"]
    if not found:
        return None
    return f"median {duration(found['median'])}, worst {duration(found['worst'])} of {found['count']} get-config"


def _ahead(clock: Value | None) -> str | None:
    if clock is None or clock["ahead"] is None:
        return None
    return f"{clock['ahead']:+.3f} s"


def _clock(value: Value) -> str | None:
    clock = value["clock"]
    if clock is None or clock["ahead"] is None:
        return str(clock["how"]) if clock else None
    side = "ahead of" if clock["ahead"] > 0 else "behind"
    return f"{abs(clock['ahead']):.3f} s {side} the controller's, give or take {clock['uncertainty']:.3f} s: {clock['how']}"


def _about(values: list[Value]) -> str:
    return ", ".join(dict.fromkeys(f"{one['about']}" for one in values)) or NONE
