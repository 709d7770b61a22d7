"""The process behind module `conformance`, as sysrepo_side.py is behind a node's: serves its operations, clears its data."""

import time
from collections.abc import Callable
from typing import Any

import sysrepo
from sysrepo_side import Side, main

MODULE = "conformance"
_CLEAR_SECONDS = 5.0

Data = dict[str, Any]


class ConformanceSide(Side):
    """What the suite asks for beside what any Side does."""

    def __init__(self) -> None:
        super().__init__()
        self.operational = self.connection.start_session("operational")
        # A subscription makes running's data visible in operational, too.
        self.session.subscribe_module_change(MODULE, f"/{MODULE}:*", _decide)
        for name, served in _OPERATIONS.items():
            self.session.subscribe_rpc_call(f"/{MODULE}:{name}", served, strict=True)

    def do(self, command: str, argument: str) -> None:
        match command:
            case "clear":
                self.clear()
            case "state":  # pushes operational data, until the next clear
                self.state(argument)
            case "replace":  # running's configuration of the modules in it, given as XML or JSON
                self.replace(argument)
            case _:
                super().do(command, argument)

    def state(self, xml: str) -> None:
        with self.operational.get_ly_ctx() as context:
            tree = context.parse_data_mem(xml, "xml", parse_only=True)
            self.operational.edit_batch_ly(tree)
            self.operational.apply_changes()
            tree.free()

    def replace(self, text: str) -> None:
        with self.connection.start_session("running") as session, session.get_ly_ctx() as context:
            tree = context.parse_data_mem(text, "json" if text.startswith("{") else "xml", strict=True, parse_only=True)
            session.replace_config_ly(tree, tree.module().name())  # takes the tree

    def clear(self) -> None:
        """Empties the module everywhere; candidate follows running again. Waits for a lock of a session that is ending."""
        self.operational.stop()
        self.operational = self.connection.start_session("operational")
        for datastore in "running", "startup":
            _until_unlocked(lambda: self._empty(datastore))  # noqa: B023 - called before the next turn
        _until_unlocked(self._reset_candidate)

    def _empty(self, datastore: str) -> None:
        with self.connection.start_session(datastore) as session:
            session.replace_config_ly(None, MODULE)

    def _reset_candidate(self) -> None:
        with self.connection.start_session("candidate") as session:
            session.copy_config("running")


def _until_unlocked(function: Callable[[], None]) -> None:
    deadline = time.monotonic() + _CLEAR_SECONDS
    while True:
        try:
            return function()
        except sysrepo.SysrepoLockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _decide(event: str, _id: int, changes: Any, _private: Any) -> None:
    for change in changes:
        if event == "change" and change.xpath.endswith("/refused") and getattr(change, "value", None):
            raise sysrepo.SysrepoValidationFailedError(str(change.value))


def _echo(_path: str, given: Data, _event: str, _private: Any) -> Data:
    return {"text": [given["text"]] * int(given["times"])}


def _nothing(_path: str, _given: Data, _event: str, _private: Any) -> None:
    return None


def _fail(_path: str, given: Data, _event: str, _private: Any) -> None:
    raise sysrepo.SysrepoOperationFailedError(str(given["text"]))


def _restart(_path: str, given: Data, _event: str, _private: Any) -> Data:
    return {"done": f"after {given['delay']}"}


_OPERATIONS: dict[str, Callable[..., Data | None]] = {
    "echo": _echo,
    "nothing": _nothing,
    "fail": _fail,
    "server/restart": _restart,
    "server/ping": _nothing,
}


if __name__ == "__main__":
    main(ConformanceSide())
