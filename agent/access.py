"""Who may do what over NETCONF: the ietf-netconf-acm rules that every node starts with (RFC 8341).

Three roles. A controller writes what 015 and its extensions model; an operator reads everything that is no secret; a monitor
reads the node's state and hears its notifications. What the models mark as secret (private keys) has no rule, and so is
denied to all of them.
"""

from collections.abc import Sequence
from typing import Any

from qswitch import yang

from .config import ROLES, NetconfUser

_SERVER_MODULES = ("ietf-netconf-server", "ietf-keystore", "ietf-truststore")
_READING = ("get", "close-session")


def rules(users: Sequence[NetconfUser]) -> dict[str, Any]:
    """`nacm` with the users in the groups of their roles."""
    return {
        "ietf-netconf-acm:nacm": {
            "enable-nacm": True,
            "read-default": "permit",
            "write-default": "deny",
            "exec-default": "permit",
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
    writes = [
        {"name": f"write-{module}", "module-name": module, "access-operations": "create update delete", "action": "permit"}
        for module in (yang.NODE, yang.EXTENSIONS)
    ]
    return [*writes, _read_rules(), *_executions("kill-session")]


def _monitor() -> list[dict[str, Any]]:
    hidden = [
        {"name": f"hide-{module}", "module-name": module, "access-operations": "read", "action": "deny"}
        for module in _SERVER_MODULES
    ]
    return [*hidden, *_only(*_READING)]


def _operator() -> list[dict[str, Any]]:
    """Reads, and can stop nobody from writing: no lock, and no end to another's session."""
    return [_read_rules(), *_only(*_READING, "get-config", "validate")]


def _only(*names: str) -> list[dict[str, Any]]:
    """These operations, subscriptions and schemas; nothing else."""
    subscribe = {"name": "exec-subscribe", "module-name": "notifications", "access-operations": "exec", "action": "permit"}
    schemas = {
        "name": "exec-get-schema",
        "module-name": "ietf-netconf-monitoring",
        "access-operations": "exec",
        "action": "permit",
    }
    nothing_else = {"name": "exec-nothing-else", "module-name": "*", "access-operations": "exec", "action": "deny"}
    return [*_executions(*names), subscribe, schemas, nothing_else]


def _read_rules() -> dict[str, Any]:
    """The rules are no secret to those who must understand a refusal."""
    return {"name": "read-rules", "module-name": "ietf-netconf-acm", "access-operations": "read", "action": "permit"}


def _executions(*names: str) -> list[dict[str, Any]]:
    return [
        {
            "name": f"exec-{name}",
            "module-name": "ietf-netconf",
            "rpc-name": name,
            "access-operations": "exec",
            "action": "permit",
        }
        for name in names
    ]
