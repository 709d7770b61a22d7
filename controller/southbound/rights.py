"""What this user may do at a node, found out without changing anything there (RFC 8341 has no operation that tells).

Each answer says how it was found out. Killing sessions is not tried: it would end somebody's.
"""

import asyncio
import uuid

from ..checks import RightCheck
from ..errors import NodeRefused
from ..model import LinkData, LinkId, LinkType, NodeId
from ..plan import NodeEdit
from .editing import build_config
from .nodedata import FILTER, parse_node
from .session import NetconfSession

DENIED = "access-denied"
# Refusals that come from somebody else's lock, so that nothing is said about the user's rights.
_LOCKED = ("in-use", "lock-denied")


async def reading(session: NetconfSession) -> tuple[RightCheck, NodeId | None]:
    """Whether qkd_node can be read, and the node's id: of what is denied, NETCONF says nothing at all."""
    try:
        node = parse_node(await session.get_config(FILTER))
    except NodeRefused as error:
        return _refused("read", "get-config of qkd_node", error), None
    if node is None:
        how = "get-config of qkd_node came back empty: access control hides it from this user, or the node has none"
        return RightCheck("read", False, how), None
    return RightCheck("read", True, "get-config of qkd_node had the node's id"), node.node


async def editing(session: NetconfSession, node: NodeId) -> RightCheck:
    """Whether a link could be configured: tried with one that nobody has, in a way that makes nothing."""
    link = LinkData(
        LinkId(str(uuid.uuid4())), LinkType.VIRTUAL, False, local_node=node, remote_node=NodeId(str(uuid.uuid4()))
    )
    edit = NodeEdit(node, put_links=(link,))
    if ":candidate" in session.capabilities:
        # Rather than by test-only: not every server asks access control about what it only tests.
        try:
            return await _candidate(session, edit)
        except NodeRefused:
            pass  # somebody else works on it, or this user may not take it back: the other way is left
    if not any(one.endswith(":validate:1.1") for one in session.capabilities):
        return RightCheck("edit", None, "not tried: the node offers no test-only, and no candidate that could be locked")
    how = "edit-config with test-option test-only"
    try:
        await session.edit_config(build_config(edit), test_only=True)
    except NodeRefused as error:
        return _refused("edit", how, error)
    return RightCheck("edit", True, f"{how} was accepted, though access control may not have been asked")


async def _candidate(session: NetconfSession, edit: NodeEdit) -> RightCheck:
    """With the candidate locked, so that nobody else's preparations are discarded with this (RFC 6241 clause 8.3.5.2).

    Raises NodeRefused, before anything is edited, when it cannot be locked or discarded.
    """
    how = "edit-config of the candidate"
    await session.lock("candidate")
    try:
        await session.discard_changes()
        try:
            await session.edit_config(build_config(edit), "candidate")
        except NodeRefused as error:
            return _refused("edit", how, error)
        await session.discard_changes()
        return RightCheck("edit", True, f"{how} was accepted, and discarded at once")
    finally:
        await session.unlock("candidate")


async def locking(session: NetconfSession, quiet: asyncio.Lock) -> RightCheck:
    """Locks what disturbs least, for a moment; while it is running, the controller itself edits nothing (`quiet`)."""
    if ":candidate" in session.capabilities:
        return await _locked(session, "candidate")
    async with quiet:
        return await _locked(session, "running")


async def _locked(session: NetconfSession, target: str) -> RightCheck:
    how = f"lock of {target}"
    try:
        await session.lock(target)
    except NodeRefused as error:
        if error.tag in _LOCKED:
            return RightCheck("lock", True, f"{how}: another session has it at present ({error.problem})")
        return _refused("lock", how, error)
    await session.unlock(target)
    return RightCheck("lock", True, f"{how}, given back at once")


async def subscribing(session: NetconfSession, start_time: str | None) -> RightCheck:
    """Subscribes on a session of its own, from a moment ago on where the node can replay."""
    how = "create-subscription on a session of its own"
    try:
        if start_time is not None:
            try:
                await session.create_subscription(start_time)
            except NodeRefused as error:
                if error.tag == DENIED:
                    raise
                await session.create_subscription()
        else:
            await session.create_subscription()
    except NodeRefused as error:
        return _refused("subscribe", how, error)
    return RightCheck("subscribe", True, how)


NOT_KILLED = RightCheck("kill-session", None, "not tried: it would end somebody's session")


def _refused(name: str, how: str, error: NodeRefused) -> RightCheck:
    if error.tag == DENIED:
        return RightCheck(name, False, f"{how} was denied: {error.problem}")
    return RightCheck(name, None, f"{how} was refused for another reason: {error.problem} ({error.tag})")
