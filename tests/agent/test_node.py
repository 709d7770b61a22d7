"""How a node ends, whatever its parts do."""

from types import SimpleNamespace
from typing import Any

import pytest

from qswitch.agent.node import Node


@pytest.mark.parametrize("error", [ValueError("a plugin's"), OSError("a disk's")], ids=repr)
async def test_a_part_that_does_not_stop_keeps_no_other_from_stopping(error: Exception) -> None:
    """The key store writes what is noted, and puts back what it released ahead, when it is stopped; the datastore saves."""
    stopped = list[str]()

    def part(name: str, fails: bool = False) -> Any:
        async def stop() -> None:
            stopped.append(name)
            if fails:
                raise error

        return SimpleNamespace(stop=stop, cancel=stop)

    node = object.__new__(Node)
    parts = {"_rest": part("014"), "_server": part("004", fails=True), "_tasks": part("tasks"), "_links": part("links")}
    for name, value in (parts | {"_keys": part("keys"), "_datastore": part("datastore")}).items():
        setattr(node, name, value)
    await node.stop()
    assert stopped == ["014", "004", "tasks", "links", "keys", "datastore"]
