"""What is made of a replay: once each, and only what somebody still waits for."""

from lxml import etree

from qswitch.controller.southbound.missed import NOTIFICATION, Heard
from qswitch.controller.southbound.nodedata import EXTENSIONS, NODE
from qswitch.controller.southbound.notifications import ApplicationNew, LinkChanged, Notification


def told(heard: Heard, at: int, content: str) -> list[Notification]:
    text = (
        f'<notification xmlns="{NOTIFICATION}"><eventTime>2026-11-25T09:00:{at:02d}.5Z</eventTime>{content}</notification>'
    )
    return heard.event(etree.fromstring(text)[1])


def new(name: str, seconds: int = 60) -> str:
    return (
        f'<sdqkdn_application_new xmlns="{NODE}"><qkd_application><server_app_id>{name}</server_app_id>'
        f'<open_timeout xmlns="{EXTENSIONS}">{1000 * seconds}</open_timeout></qkd_application></sdqkdn_application_new>'
    )


LINK = "00000000-0000-4000-8000-000000000001"
DOWN = f'<sdqkdn_link_down xmlns="{NODE}"><qkd_link><qkdl_id>{LINK}</qkdl_id></qkd_link></sdqkdn_link_down>'
OVER = '<replayComplete xmlns="urn:ietf:params:xml:ns:netmod:notification"/>'


def names(notifications: list[Notification]) -> list[tuple[str, int | None]]:
    return [(one.server_app_id, one.open_timeout_ms) for one in notifications if isinstance(one, ApplicationNew)]


def test_nothing_is_replayed_to_who_heard_nothing_yet() -> None:
    heard = Heard()
    assert heard.begin() is None
    assert names(told(heard, 1, new("a"))) == [("a", 60_000)]
    assert isinstance(told(heard, 2, DOWN)[0], LinkChanged)


def test_what_was_missed_comes_at_the_end_with_the_time_that_is_left() -> None:
    heard = Heard()
    told(heard, 1, new("a"))
    assert heard.begin() == "2026-11-25T09:00:01.5Z"
    for at, content in ((1, new("a")), (2, new("b")), (3, DOWN), (4, new("c", 5))):
        assert not told(heard, at, content)
    assert names(told(heard, 12, OVER)) == [("b", 50_000)]
    assert names(told(heard, 13, new("d"))) == [("d", 60_000)]


def test_a_replay_that_breaks_off_is_asked_for_again() -> None:
    heard = Heard()
    told(heard, 1, new("a"))
    for _ in range(2):
        assert heard.begin() == "2026-11-25T09:00:01.5Z"
        told(heard, 2, new("b"))
    assert names(heard.end()) == [("b", 60_000)]
    assert heard.begin() == "2026-11-25T09:00:02.5Z"
