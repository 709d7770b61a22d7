"""The same rules seen by a stock client, ncclient: what it builds, sends and reads by itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from lxml import etree
from ncclient.operations import RPCError
from ncclient.operations.errors import MissingCapabilityError
from netconf_front import Front
from rfc import rfc
from wire import PREFIXES, C, c

A = "<values><word>a</word></values>"
B = "<values><word>b</word></values>"


@pytest.fixture
def stock(front: Front) -> Iterator[Any]:
    with front.stock() as session:
        yield session


def config(xml: str) -> str:
    return f'<config xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" {PREFIXES}>{c(xml)}</config>'


def word(session: Any, datastore: str = "running") -> list[str | None]:
    reply = session.get_config(datastore, filter=("subtree", f'<values xmlns="{C}"/>'))
    return [one.text for one in etree.fromstring(reply.data_xml.encode()).iter(f"{{{C}}}word")]


@rfc("6241", "8.1", "a stock client agrees on capabilities and gets a session-id")
def test_hello(stock: Any) -> None:
    assert int(stock.session_id) > 0
    assert ":candidate" in stock.server_capabilities
    assert ":confirmed-commit:1.1" in stock.server_capabilities


@rfc("6241", "7.2", "a stock client edits, and reads what it has edited")
def test_edit(stock: Any) -> None:
    stock.edit_config(target="running", config=config(A), default_operation="merge", test_option="test-then-set")
    assert word(stock) == ["a"]
    with pytest.raises(RPCError) as caught:
        stock.edit_config(target="running", config=config(A.replace("<word>", '<word nc:operation="create">')))
    assert (caught.value.tag, caught.value.type, caught.value.severity) == ("data-exists", "application", "error")


@rfc("6241", "8.5", "a stock client gets all or nothing with rollback-on-error")
def test_rollback_on_error(stock: Any) -> None:
    bad = config('<values><word>a</word><text nc:operation="delete"/></values>')
    with pytest.raises(RPCError):
        stock.edit_config(target="running", config=bad, error_option="rollback-on-error")
    assert word(stock) == []


@rfc("6241", "8.9", "a stock client filters by XPath")
def test_xpath(stock: Any) -> None:
    stock.edit_config(target="running", config=config(A))
    assert ">a</" in stock.get(filter=("xpath", ({"x": C}, "/x:values/x:word"))).data_xml


@rfc("6241", "8.3", "a stock client prepares, validates, commits and discards a candidate")
def test_candidate(stock: Any) -> None:
    with stock.locked("candidate"):
        stock.edit_config(target="candidate", config=config(A))
        stock.validate("candidate")
        assert (word(stock), word(stock, "candidate")) == ([], ["a"])
        stock.commit()
        stock.edit_config(target="candidate", config=config(B))
        stock.discard_changes()
    assert (word(stock), word(stock, "candidate")) == (["a"], ["a"])


@rfc("6241", "8.4", "a stock client commits for a while, and another one confirms")
def test_confirmed_commit(front: Front, stock: Any) -> None:
    stock.edit_config(target="candidate", config=config(A))
    stock.commit(confirmed=True, timeout="60", persist="token")
    with front.stock() as other:
        other.commit(persist_id="token")
    assert word(stock) == ["a"]


@rfc("6241", "8.4.4.1", "a stock client cancels a commit")
def test_cancel_commit(stock: Any) -> None:
    stock.edit_config(target="candidate", config=config(A))
    stock.commit(confirmed=True, timeout="60")
    stock.cancel_commit()
    assert word(stock) == []


@rfc("6241", "7.3", "a stock client copies and deletes configurations")
def test_copy(stock: Any) -> None:
    stock.edit_config(target="running", config=config(A))
    stock.copy_config(source="running", target="startup")
    assert word(stock, "startup") == ["a"]
    with pytest.raises((RPCError, MissingCapabilityError)):
        stock.delete_config("running")


@rfc("6241", "7.5", "a stock client learns who holds a lock")
def test_lock(front: Front, stock: Any) -> None:
    with front.stock() as other, other.locked("running"):
        with pytest.raises(RPCError) as caught:
            stock.lock("running")
        assert caught.value.tag == "lock-denied"
        assert f">{other.session_id}<" in (caught.value.info or "")
    stock.lock("running")
    stock.unlock("running")


@rfc("6241", "7.9", "a stock client kills another's session")
def test_kill(front: Front, stock: Any) -> None:
    other = front.stock()
    stock.kill_session(other.session_id)
    with pytest.raises(Exception, match=r"(?i)session|connected|timeout|transport"):
        other.get_config("running")


@rfc("6243", "4.5.1", "a stock client chooses how defaults are told")
def test_with_defaults(stock: Any) -> None:
    filter_ = ("subtree", f'<values xmlns="{C}"/>')
    assert "<colour" in stock.get_config("running", filter=filter_, with_defaults="report-all").data_xml
    assert "<colour" not in stock.get_config("running", filter=filter_, with_defaults="explicit").data_xml
