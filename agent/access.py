"""Who may do what over NETCONF: the ietf-netconf-acm rules that every node starts with (RFC 8341).

Three roles. A controller writes what 015 and its extensions model; an operator reads everything that is no secret; a monitor
reads the node's state and hears its notifications. What the models mark as secret (private keys) has no rule, and so is
denied to all of them.

An operation runs only where a rule of the user's role names it: one that a later module brings is nobody's until somebody
decides. `delete-config` and `factory-reset` are named for no role, and stay with whoever administers the machine.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from qswitch import yang

from .config import ROLES, NetconfUser

Operations = Mapping[str, Sequence[str]]  # module -> names of its RPCs

_MONITORING: Operations = {
    "ietf-netconf": ("get",),
    "ietf-netconf-monitoring": ("get-schema",),
    "notifications": ("create-subscription",),
}
# A rule cannot tell datastores apart: who may use these may read configuration, so a monitor may not. The subscriptions
# of RFC 8639 and 8641, which netopeer2 serves, reach configuration too.
_READING: Operations = {
    "ietf-netconf": ("get-config", "validate"),
    "ietf-netconf-nmda": ("get-data",),
    "ietf-subscribed-notifications": ("establish-subscription", "modify-subscription", "delete-subscription"),
    "ietf-yang-push": ("resync-subscription",),
}
# Locks and the end of others' sessions are among them: whoever may not write can stop nobody from writing.
_WRITING: Operations = {
    "ietf-netconf": (
        "edit-config", "copy-config", "lock", "unlock", "commit", "discard-changes", "cancel-commit", "kill-session",
    ),
    "ietf-netconf-nmda": ("edit-data",),
}  # fmt: skip
_STATE = (
    yang.NODE,
    yang.EXTENSIONS,
    "ietf-yang-library",
    "ietf-netconf-monitoring",
    "nc-notifications",
    "ietf-netconf-notifications",
)


def rules(users: Sequence[NetconfUser]) -> dict[str, Any]:
    """`nacm` with the users in the groups of their roles."""
    return {
        "ietf-netconf-acm:nacm": {
            "enable-nacm": True,
            "read-default": "permit",
            "write-default": "deny",
            "exec-default": "deny",
            # Groups of the operating system are no roles: Debian has one named `operator`.
            "enable-external-groups": False,
            "groups": {"group": [_group(role, users) for role in ROLES]},
            "rule-list": [
                {"name": "controller", "group": ["controller"], "rule": _controller()},
                {"name": "operator", "group": ["operator"], "rule": _operator()},
                {"name": "monitor", "group": ["monitor"], "rule": _monitor()},
            ],
        }
    }


def _group(role: str, users: Sequence[NetconfUser]) -> dict[str, Any]:
    members = [user.name for user in users if user.role == role]
    return {"name": role, "user-name": members} if members else {"name": role}


def _controller() -> list[dict[str, Any]]:
    writes = [_rule(f"write-{module}", module, "create update delete") for module in (yang.NODE, yang.EXTENSIONS)]
    return [*writes, _read_rules(), *_executions(_MONITORING, _READING, _WRITING)]


def _operator() -> list[dict[str, Any]]:
    return [_read_rules(), *_executions(_MONITORING, _READING)]


def _monitor() -> list[dict[str, Any]]:
    """What a node is and does; nothing of who administers it and how it is guarded."""
    reads = [_rule(f"read-{module}", module, "read") for module in _STATE]
    return [*reads, _rule("read-nothing-else", "*", "read", "deny"), *_executions(_MONITORING)]


def _read_rules() -> dict[str, Any]:
    """The rules are no secret to those who must understand a refusal."""
    return _rule("read-rules", "ietf-netconf-acm", "read")


def _executions(*groups: Operations) -> list[dict[str, Any]]:
    return [
        {**_rule(f"exec-{name}", module, "exec"), "rpc-name": name}
        for operations in groups
        for module, names in operations.items()
        for name in names
    ]


def _rule(name: str, module: str, operations: str, action: str = "permit") -> dict[str, Any]:
    return {"name": name, "module-name": module, "access-operations": operations, "action": action}
