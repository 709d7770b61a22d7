"""Links, decided: the state machine as one table, the rules for their configuration, their rates. No I/O.

What a link does (`Activity`) and whether it holds key decide together what 015 calls its status, clause 2.7 of the
standard's link states: ACTIVE makes key; PASSIVE makes none but has some; PENDING waits for its first activation; OFF
makes none and has none. A link that a controller switched off while key is stored is therefore PASSIVE until it is used up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from qswitch import yang
from qswitch.protocol.etsi015 import MAX_DISJOINT_PATHS

from .errors import InvalidValue
from .model import (
    ApplicationConfig,
    Configuration,
    Interface,
    InterfaceId,
    LinkConfig,
    LinkId,
    LinkStatus,
    LinkType,
    NodeId,
    Performance,
    Role,
)


class Activity(Enum):
    HELD = auto()  # configuration keeps it off
    WAITING = auto()  # enabled, has not run since
    RUNNING = auto()
    BROKEN = auto()  # ran, and stopped on its own


class LinkEvent(Enum):
    ENABLED = auto()  # by configuration
    DISABLED = auto()
    RUNS = auto()  # key is made: the device says so, or the relay brings some
    STOPS = auto()


class LinkAction(Enum):
    WORK = auto()  # bring device and key manager to what is configured
    SAY_UP = auto()
    SAY_DOWN = auto()


_QUIET: tuple[LinkAction, ...] = ()

# A held link still hears of its device: the last report may come after it was told to stop.
TRANSITIONS: dict[tuple[Activity, LinkEvent], tuple[Activity, tuple[LinkAction, ...]]] = {
    (Activity.HELD, LinkEvent.ENABLED): (Activity.WAITING, (LinkAction.WORK,)),
    (Activity.HELD, LinkEvent.DISABLED): (Activity.HELD, _QUIET),
    (Activity.HELD, LinkEvent.RUNS): (Activity.HELD, _QUIET),
    (Activity.HELD, LinkEvent.STOPS): (Activity.HELD, _QUIET),
    (Activity.WAITING, LinkEvent.ENABLED): (Activity.WAITING, _QUIET),
    (Activity.WAITING, LinkEvent.DISABLED): (Activity.HELD, (LinkAction.WORK,)),
    (Activity.WAITING, LinkEvent.RUNS): (Activity.RUNNING, (LinkAction.SAY_UP,)),
    (Activity.WAITING, LinkEvent.STOPS): (Activity.WAITING, _QUIET),
    (Activity.RUNNING, LinkEvent.ENABLED): (Activity.RUNNING, _QUIET),
    (Activity.RUNNING, LinkEvent.DISABLED): (Activity.HELD, (LinkAction.WORK, LinkAction.SAY_DOWN)),
    (Activity.RUNNING, LinkEvent.RUNS): (Activity.RUNNING, _QUIET),
    (Activity.RUNNING, LinkEvent.STOPS): (Activity.BROKEN, (LinkAction.SAY_DOWN,)),
    (Activity.BROKEN, LinkEvent.ENABLED): (Activity.BROKEN, _QUIET),
    (Activity.BROKEN, LinkEvent.DISABLED): (Activity.HELD, (LinkAction.WORK,)),
    (Activity.BROKEN, LinkEvent.RUNS): (Activity.RUNNING, (LinkAction.SAY_UP,)),
    (Activity.BROKEN, LinkEvent.STOPS): (Activity.BROKEN, _QUIET),
}

# (what it does, whether key is stored) -> what 015 calls it.
STATUS: dict[tuple[Activity, bool], LinkStatus] = {
    (Activity.HELD, False): LinkStatus.OFF,
    (Activity.HELD, True): LinkStatus.PASSIVE,
    (Activity.WAITING, False): LinkStatus.PENDING,
    (Activity.WAITING, True): LinkStatus.PASSIVE,
    (Activity.RUNNING, False): LinkStatus.ACTIVE,
    (Activity.RUNNING, True): LinkStatus.ACTIVE,
    (Activity.BROKEN, False): LinkStatus.OFF,
    (Activity.BROKEN, True): LinkStatus.PASSIVE,
}


def wanted(config: LinkConfig) -> LinkEvent:
    """Whether configuration lets the link run: not with `qkdl_enable` false, nor with `qkdl_status` written OFF."""
    off = not config.enabled or config.status is LinkStatus.OFF
    return LinkEvent.DISABLED if off else LinkEvent.ENABLED


def is_relay(config: LinkConfig) -> bool:
    """Whether this node is an intermediate of a virtual link."""
    return config.type is LinkType.VIRTUAL and config.previous_hop is not None and config.next_hop is not None


# Rules ---------------------------------------------------------------------------------------------------------------


def check(configuration: Configuration, interfaces: Mapping[InterfaceId, Interface]) -> None:
    """Refuses what this node cannot do, before anything of it is done. Raises InvalidValue naming the leaf.

    `interfaces` are those the node really has.
    """
    for link in configuration.links.values():
        check_link(link, configuration, interfaces)


def check_link(link: LinkConfig, configuration: Configuration, interfaces: Mapping[InterfaceId, Interface]) -> None:
    """The rules for one link among the others. Raises InvalidValue naming the leaf."""
    if link.type is LinkType.VIRTUAL:
        _check_virtual(link, configuration)
        return
    _check_physical(link, configuration, interfaces)
    physical = (one for one in configuration.links.values() if one.type is LinkType.PHYSICAL)
    sharing = [one.link for one in physical if one.local_interface == link.local_interface]
    if (first := min(sharing, default=link.link)) != link.link:
        path = leaf(link.link, "qkdl_local/qkdi_id")
        raise InvalidValue(path, str(link.local_interface), f"link {first} uses this interface")


def leaf(link: LinkId, name: str) -> str:
    return f"/etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link[qkdl_id='{link}']/{name}"


def _check_physical(link: LinkConfig, node: Configuration, interfaces: Mapping[InterfaceId, Interface]) -> None:
    if link.local_node not in (None, node.node):
        raise InvalidValue(leaf(link.link, "qkdl_local/qkdn_id"), str(link.local_node), f"this node is {node.node}")
    if link.local_interface is None or (interface := interfaces.get(link.local_interface)) is None:
        have = ", ".join(map(str, sorted(interfaces))) or "none"
        value = "" if link.local_interface is None else str(link.local_interface)
        raise InvalidValue(
            leaf(link.link, "qkdl_local/qkdi_id"), value, f"a physical link names an interface of this node ({have})"
        )
    if link.remote_node is None or link.remote_node == node.node:
        value = link.remote_node or ""
        raise InvalidValue(leaf(link.link, "qkdl_remote/qkdn_id"), value, "a physical link names the other node")
    if link.role not in (None, interface.role_support) and interface.role_support is not Role.TRANSCEIVER:
        rule = f"interface {interface.interface} supports {interface.role_support} only"
        raise InvalidValue(leaf(link.link, "phys_qkd_role"), str(link.role), rule)
    limit = interface.max_absorption_db
    if link.attenuation_db is not None and limit is not None and link.attenuation_db > limit:
        rule = f"interface {interface.interface} bears at most {limit} dB"
        raise InvalidValue(leaf(link.link, "phys_channel_att"), str(link.attenuation_db), rule)


def _check_virtual(link: LinkConfig, node: Configuration) -> None:
    if link.components:
        _check_components(link, node)
        return
    if link.component_of is not None and not is_relay(link):
        owner = node.links.get(link.component_of)
        if owner is None or link.link not in owner.components:
            rule = "the link that this one is a component of names it among its components"
            raise InvalidValue(leaf(link.link, f"{yang.EXTENSIONS}:component_of"), link.component_of, rule)
    if link.previous_hop is None and link.next_hop is None:
        raise InvalidValue(leaf(link.link, "virt_next_hop"), "", "a virtual link has a next or a previous hop")
    for name, hop in (("virt_prev_hop", link.previous_hop), ("virt_next_hop", link.next_hop)):
        if hop == node.node:
            raise InvalidValue(leaf(link.link, name), hop, "this node is no hop of its own")
    if is_relay(link) and not node.relay_mode:
        rule = "this node does not relay (key_relay_mode_enable is false)"
        raise InvalidValue(leaf(link.link, "virt_next_hop"), str(link.next_hop), rule)


def _check_components(link: LinkConfig, node: Configuration) -> None:
    """A link over several paths, at one of its ends. That no node between is on two of them only the controller can see;
    what can be seen from here is that they leave to different neighbours."""
    path = leaf(link.link, f"{yang.EXTENSIONS}:components")
    if not 2 <= len(link.components) <= MAX_DISJOINT_PATHS:
        raise InvalidValue(path, ", ".join(link.components), f"a link has from 2 to {MAX_DISJOINT_PATHS} components")
    if link.previous_hop is not None or link.next_hop is not None or link.component_of is not None:
        raise InvalidValue(path, ", ".join(link.components), "a link with components has no hops, and is none itself")
    parts = {name: one for name in link.components if (one := node.links.get(name)) is not None}
    for name in link.components:
        if (one := parts.get(name)) is None or one.type is not LinkType.VIRTUAL or one.component_of != link.link:
            raise InvalidValue(path, name, "a component is a virtual link that says what it is a component of")
        if is_relay(one) or one.components or one.remote_node != link.remote_node:
            raise InvalidValue(path, name, "a component joins the same two nodes")
    for hops in ([one.next_hop for one in parts.values()], [one.previous_hop for one in parts.values()]):
        if set(hops) != {None} and (None in hops or len(set(hops)) < len(hops)):
            raise InvalidValue(path, ", ".join(link.components), "components go the same way, over different neighbours")


# Rates ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Rate:
    """Bits per second from a rising total, smoothed over some ten samples. The first sample only sets the mark."""

    bps: float = 0.0
    total: int | None = None
    at: float = 0.0

    def sample(self, total: int, now: float) -> float:
        """What came in per second since the last sample; `bps` is the smoothed value."""
        if self.total is None or total < self.total:
            self.total, self.at = total, now
            return 0.0
        if (passed := now - self.at) <= 0:
            return 0.0
        fresh = (total - self.total) / passed
        self.total, self.at = total, now
        self.bps += 0.2 * (fresh - self.bps)
        return fresh


@dataclass(slots=True)
class Refill:
    """How fast a virtual link fills. A full pool takes nothing in, so a pause says nothing and keeps what was measured."""

    rate: Rate
    bps: float = 0.0

    def sample(self, total: int, now: float) -> bool:
        """Whether anything came in."""
        if fresh := self.rate.sample(total, now):
            self.bps = max(fresh, 0.9 * self.bps + 0.1 * fresh)
        return fresh > 0


def expected_consumption(
    link: LinkConfig,
    links: Iterable[LinkConfig],
    applications: Iterable[ApplicationConfig],
    drawn_bps: Mapping[str, float],
) -> int:
    """bit/s for the consumers of a link: applications backed by it, and virtual links relayed over a physical one.

    An application counts with the rate it may draw at most, else with the least it needs, else with what it drew of the link
    in the last period; a virtual link with the bandwidth it was promised.
    """
    total = sum(
        one.qos.max_bandwidth_bps or one.qos.min_bandwidth_bps or round(drawn_bps.get(one.ksid, 0.0))
        for one in applications
        if link.link in one.backing_links and one.remote_node is not None
    )
    if link.type is LinkType.PHYSICAL and link.remote_node is not None:
        total += sum(_relayed_over(link.remote_node, other) for other in links)
    return min(total, 2**32 - 1)


def _relayed_over(neighbour: NodeId, link: LinkConfig) -> int:
    """Pads are taken from both ends' copies alike, so what comes in from a hop costs as much as what goes out to it."""
    if link.type is not LinkType.VIRTUAL:
        return 0
    return (link.bandwidth_bps or 0) * [link.previous_hop, link.next_hop].count(neighbour)


def is_news(old: Performance | None, new: Performance) -> bool:
    """Whether the rate or the QBER differs by more than a tenth from what was last told."""
    if old is None:
        return True
    return _differs(old.skr_bps, new.skr_bps) or _differs(old.qber or 0.0, new.qber or 0.0)


def _differs(old: float, new: float) -> bool:
    return abs(old - new) > 0.1 * max(abs(old), abs(new))
