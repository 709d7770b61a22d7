"""Every error has its row, its text and its data."""

import json

import pytest

from qswitch.controller import errors
from qswitch.controller.errors import EDGES, ControllerError, InvalidRequest, TransactionFailed, edge


def classes(root: type[ControllerError]) -> list[type[ControllerError]]:
    return [root, *(each for one in root.__subclasses__() for each in classes(one))]


@pytest.mark.parametrize("kind", classes(ControllerError))
def test_every_class_has_a_row(kind: type[ControllerError]) -> None:
    assert kind in EDGES
    assert 400 <= EDGES[kind].http < 600


def test_codes_are_distinct() -> None:
    assert len({one.code for one in EDGES.values()}) == len(EDGES)


def test_text_and_data() -> None:
    error = InvalidRequest("bandwidth_bps", "-1", "must not be negative")
    assert str(error) == "bandwidth_bps: '-1' is refused: must not be negative"
    assert edge(error).code == "invalid-request"
    failed = TransactionFailed("create link", {"Norte": "refused"})
    assert json.loads(json.dumps(failed.details())) == {"what": "create link", "failed": {"Norte": "refused"}}
    assert "Norte: refused" in str(failed)
    assert errors.ControllerError("x").details() == {}
