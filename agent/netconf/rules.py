"""What the rules of access control say where sysrepo does not ask them, or too late (RFC 8341).

Sysrepo decides on data, notifications and most operations. It asks no rule about executing get, get-config and get-data,
which clause 3.4.4 does not except; and it looks whether there is what is to be created or deleted before it asks whether
the user may, so that an error would tell.
"""

import grp
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import libyang

from .errors import split_path

if TYPE_CHECKING:
    from .datastore import Datastore

UNASKED = ("get", "get-config", "get-data")
_MODULE = "ietf-netconf-acm"
_KEY = re.compile(r"""\[(?:[\w.-]+:)?((?:[\w.-]+|\.)=(?:'[^']*'|"[^"]*"))\]""")

Step = tuple[str, frozenset[str]]  # module:name, and the keys that are given


class Rules:
    """Who may do what by the rules of the running datastore; they are read again once they have changed."""

    def __init__(self, datastore: "Datastore") -> None:
        self._datastore = datastore
        self._changes = 0
        self._known: tuple[int, Mapping[str, Any]] = (-1, {})  # the number of changes before it was read
        self._session = datastore.start_session()
        self._session.subscribe_module_change(_MODULE, None, self._changed, done_only=True)

    def stop(self) -> None:
        self._session.stop()

    def may_execute(self, user: str, module: str, name: str) -> bool:
        """Whether an operation without `default-deny-all` may be executed (RFC 8341 clause 3.4.4)."""
        found = self._decision(user, lambda rule: _is_about_operation(rule, name) and _matches(rule, module, "exec"))
        return self._permits(found, "exec-default", "permit")

    def may_change(self, user: str, how: str, path: str, context: libyang.Context) -> bool:
        """Whether a data node, there or not, may be changed: how is `create` or `delete` (RFC 8341 clause 3.4.5)."""
        steps = _steps(path)
        module = steps[-1][0].partition(":")[0]
        found = self._decision(user, lambda rule: _is_about_data(rule, steps) and _matches(rule, module, how))
        if not found and self._rules().get("enable-nacm", True) and _is_guarded(context, steps):
            return False
        return self._permits(found, "write-default", "deny")

    def _decision(self, user: str, applies: Callable[[Mapping[str, Any]], bool]) -> str:
        """The action of the first rule for the user that applies, "" for none."""
        rules = self._rules()
        return next((str(one["action"]) for one in _rules_of(rules, _groups(rules, user)) if applies(one)), "")

    def _permits(self, decision: str, default: str, otherwise: str) -> bool:
        rules = self._rules()
        return not rules.get("enable-nacm", True) or (decision or rules.get(default, otherwise)) == "permit"

    def _changed(self, _event: str, _id: int, _changes: Any, _private: Any) -> None:
        self._changes += 1

    def _rules(self) -> Mapping[str, Any]:
        changes, rules = self._changes, self._known[1]
        if self._known[0] != changes:
            rules = self._datastore.read_own(f"/{_MODULE}:nacm").get("nacm", {})
            self._known = changes, rules
        return rules


def _groups(rules: Mapping[str, Any], user: str) -> set[str]:
    own = {one["name"] for one in rules.get("groups", {}).get("group", ()) if user in one.get("user-name", ())}
    return own | (_external_groups(user) if rules.get("enable-external-groups", True) else set())


def _external_groups(user: str) -> set[str]:
    """The groups that the operating system has the user in."""
    try:
        gids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
        return {grp.getgrgid(one).gr_name for one in gids}
    except KeyError:
        return set()


def _rules_of(rules: Mapping[str, Any], groups: set[str]) -> Iterable[Mapping[str, Any]]:
    """The rules for members of the groups, in order. To a user without a group no list applies, not even that of '*'."""
    for one in rules.get("rule-list", ()) if groups else ():
        if {"*", *groups} & set(one.get("group", ())):
            yield from one.get("rule", ())


def _matches(rule: Mapping[str, Any], module: str, how: str) -> bool:
    operations = str(rule.get("access-operations", "*")).split()
    return rule.get("module-name", "*") in ("*", module) and ("*" in operations or how in operations)


def _is_about_operation(rule: Mapping[str, Any], name: str) -> bool:
    return not {"path", "notification-name"} & rule.keys() and rule.get("rpc-name", "*") in ("*", name)


def _is_about_data(rule: Mapping[str, Any], steps: Sequence[Step]) -> bool:
    """Whether a rule has no target, or a path to the node or one above it."""
    if {"rpc-name", "notification-name"} & rule.keys():
        return False
    wanted = _steps(rule.get("path", ""))
    pairs = zip(wanted, steps, strict=False)
    return len(wanted) <= len(steps) and all(name == here and keys <= known for (name, keys), (here, known) in pairs)


def _steps(path: str) -> tuple[Step, ...]:
    """A data path, with a module's name at every step or where it changes."""
    module, found = "", []
    for step in split_path(path):
        name, bracket, rest = step.partition("[")
        if ":" in name:
            module, name = name.rsplit(":", 1)
        found.append((f"{module}:{name}", frozenset(_KEY.findall(bracket + rest))))
    return tuple(found)


def _is_guarded(context: libyang.Context, steps: Sequence[Step]) -> bool:
    """Whether the node, or one above it, is denied to all for whom no rule opens it."""
    node: libyang.SNode | None = next(context.find_path("".join(f"/{name}" for name, _ in steps)))
    while node is not None:
        if any(node.get_extension(one, prefix=_MODULE) for one in ("default-deny-write", "default-deny-all")):
            return True
        node = node.parent()
    return False
