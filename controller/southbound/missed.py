"""What a node said while nobody heard it: the replay of the next subscription (RFC 5277), as far as a read cannot tell it.

Times are the node's own throughout, so its clock may be wrong: a subscription asks for all since the last event that was
heard, and how old an event is comes from the time at the replay's end. A registration whose application has given up by
then is let go. Pure.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from lxml import etree

from .notifications import ApplicationNew, ApplicationQosUpdate, Notification, parse_notification

NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"


def event_time(event: etree._Element) -> str:
    """As the node wrote it; empty where it did not."""
    parent = event.getparent()
    return (parent.findtext(f"{{{NOTIFICATION}}}eventTime") or "").strip() if parent is not None else ""


def _moment(written: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


@dataclass(slots=True)
class Heard:
    """The events of one node, over its connections."""

    last: str = ""  # when the youngest event happened that was heard
    replaying: bool = False
    _missed: list[tuple[str, ApplicationNew | ApplicationQosUpdate]] = field(default_factory=list)

    def begin(self) -> str | None:
        """A subscription is made: since when events are to be replayed, if they are."""
        self._missed, self.replaying = [], bool(self.last)
        return self.last or None

    def event(self, event: etree._Element) -> list[Notification]:
        """What is to be done about it now. What is replayed waits for the replay's end."""
        written = event_time(event)
        if self.replaying and etree.QName(event).localname == "replayComplete":
            return self.end(written)
        notification = parse_notification(event)
        if notification is None:
            return []
        again = self.replaying and written == self.last and not self._missed
        if self.replaying:
            if isinstance(notification, ApplicationNew | ApplicationQosUpdate) and not again:
                self._missed.append((written, notification))
            return []
        self._note(written)
        return [notification]

    def end(self, written: str = "") -> list[Notification]:
        """The replay is over, at this time of the node; without one, it has taken too long."""
        missed, self._missed, self.replaying = self._missed, [], False
        for at, _ in missed:
            self._note(at)
        now = written or self.last
        return [current for at, one in missed if (current := _current(one, at, now)) is not None]

    def _note(self, written: str) -> None:
        moment, last = _moment(written), _moment(self.last)
        if moment is not None and (last is None or moment >= last):
            self.last = written


def _current(one: ApplicationNew | ApplicationQosUpdate, at: str, now: str) -> Notification | None:
    """None for a registration that nobody waits for any more; of another, with the time that is left."""
    happened, over = _moment(at), _moment(now)
    if not isinstance(one, ApplicationNew) or one.open_timeout_ms is None or happened is None or over is None:
        return one
    left = one.open_timeout_ms - round(1000 * max(0.0, (over - happened).total_seconds()))
    return replace(one, open_timeout_ms=left) if left > 0 else None
