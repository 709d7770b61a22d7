"""How much key each stream has consumed. Pure.

A node shows consumption by periods and keeps the last few only, so the controller adds them up as they pass by, from when it
first saw the stream. Both ends consume the same key, though not at the same time: the stream's total is that of the end that
is ahead.
"""

from .model import KeyStreamId, NodeId, NodeRecord


class Consumption:
    def __init__(self) -> None:
        self._ends: dict[tuple[NodeId, KeyStreamId], tuple[frozenset[str], int]] = {}  # ends of periods shown, bits so far

    def read(self, record: NodeRecord) -> None:
        """Counts the periods of a node's state that were not yet there the last time."""
        if record.qkdn_id is None or record.state is None:
            return
        for ksid, one in record.state.applications.items():
            shown, total = self._ends.get((record.qkdn_id, ksid), (frozenset(), 0))
            # Known by their ends, and not by which is later: a node's clock may be set back.
            new = {end: bits for end, bits in one.periods if end not in shown}
            if new:
                self._ends[(record.qkdn_id, ksid)] = (frozenset(end for end, _ in one.periods), total + sum(new.values()))
        self._forget(record)

    def _forget(self, record: NodeRecord) -> None:
        assert record.state is not None
        gone = [key for key in self._ends if key[0] == record.qkdn_id and key[1] not in record.state.applications]
        for key in gone:
            del self._ends[key]

    def totals(self) -> dict[KeyStreamId, int]:
        """Bits by stream."""
        totals: dict[KeyStreamId, int] = {}
        for (_, ksid), (_, bits) in self._ends.items():
            totals[ksid] = max(totals.get(ksid, 0), bits)
        return totals
