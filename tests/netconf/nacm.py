"""Access rules for cases (ietf-netconf-acm), as XML: a rule, a list of them, the whole of it."""

from collections.abc import Mapping, Sequence

ACM = "urn:ietf:params:xml:ns:yang:ietf-netconf-acm"
CONFORMANCE = "urn:quantum-switch:test:conformance"
_TARGETS = {"rpc": "rpc-name", "notification": "notification-name", "path": "path"}


def rule(action: str, operations: str = "*", module: str = "*", **target: str) -> str:
    """A rule without its name; the target is at most one of rpc, notification, and a path with prefix `c`."""
    what = "".join(f'<{_TARGETS[key]} xmlns:c="{CONFORMANCE}">{text}</{_TARGETS[key]}>' for key, text in target.items())
    wanted = f"<access-operations>{operations}</access-operations>"
    return f"<module-name>{module}</module-name>{what}{wanted}<action>{action}</action>"


def rule_list(name: str, groups: Sequence[str], *rules: str) -> str:
    """Rules of these groups, in this order."""
    members = "".join(f"<group>{one}</group>" for one in groups)
    inside = "".join(f"<rule><name>{number}</name>{one}</rule>" for number, one in enumerate(rules))
    return f"<rule-list><name>{name}</name>{members}{inside}</rule-list>"


def nacm(*lists: str, groups: Mapping[str, Sequence[str]] | None = None, **leafs: str) -> str:
    """All access rules. User `controller` may do everything; unless told otherwise, `guest` alone is in group `limited`."""
    groups = {"limited": ["guest"]} if groups is None else groups
    entries = "".join(
        f"<group><name>{name}</name>{''.join(f'<user-name>{user}</user-name>' for user in users)}</group>"
        for name, users in {**groups, "suite": ["controller"]}.items()
    )
    values = "".join(f"<{name.replace('_', '-')}>{value}</{name.replace('_', '-')}>" for name, value in leafs.items())
    everything = rule_list("suite", ["suite"], rule("permit"))
    return f'<nacm xmlns="{ACM}">{values}<groups>{entries}</groups>{"".join(lists)}{everything}</nacm>'


def limited(*rules: str, **leafs: str) -> str:
    """All access rules, with these for user `guest`."""
    return nacm(rule_list("limited", ["limited"], *rules), **leafs)
