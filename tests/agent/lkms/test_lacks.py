"""What two ends tell each other of what they lack, and which of them gets blocks."""

from collections import deque

import hypothesis.strategies as st
from hypothesis import given, settings

from qswitch.agent.lkms.blocks import USUAL_BLOCK, Totals
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.lacks import MOST_AHEAD, REST_SECONDS, Lacks, add, less
from qswitch.agent.lkms.pool import RESERVE, Pool
from qswitch.agent.model import LinkId, NodeId
from qswitch.protocol.lkms import AnyMessage, Give, Have, Lack, LinkHello, LinkSync, Want

LINK = LinkId("link")


class Silent:
    """Writes nothing down: nobody crashes here."""

    def block(self, *_: object) -> None: ...
    def block_owner(self, *_: object) -> None: ...
    def block_gone(self, *_: object) -> None: ...
    def used(self, *_: object) -> None: ...
    def totals(self, *_: object) -> None: ...


class Two:
    """Both ends of a link, met, with blocks of which each owns every other."""

    def __init__(self, blocks: int, size: int = USUAL_BLOCK) -> None:
        self.size = size
        self.out: dict[str, deque[AnyMessage]] = {"a": deque(), "b": deque()}
        self.a, self.b = (
            Pool(LINK, NodeId(here), NodeId(there), 1000, Silent(), self.out[here].append, Totals())
            for here, there in ("ab", "ba")
        )
        self.a.meet()
        self.run()
        self.feed(blocks)

    def feed(self, blocks: int) -> None:
        for number in range(blocks):
            for name, pool in (("a", self.a), ("b", self.b)):
                pool.add(number, Key(bytes(self.size)), 0.0, 0.0)
                self.out[name].append(Have(LINK, [(number, number)], False))
            self.run()

    def run(self) -> None:
        while any(self.out.values()):
            for name, pool in (("a", self.b), ("b", self.a)):
                while self.out[name]:
                    self.take(pool, self.out[name].popleft())

    def take(self, pool: Pool, message: AnyMessage) -> None:
        match message:
            case LinkHello():
                pool.hello()
            case LinkSync():
                assert not pool.sync(message, 0.0)
            case Have():
                pool.have(message)
            case Want():
                pool.asked = True
            case Lack():
                pool.lacking(message)
            case Give():
                pool.given(message)

    @property
    def own(self) -> tuple[int, int]:
        return len(self.a._stock), len(self.b._stock)


def test_what_is_owed_is_given_in_whole_blocks_and_never_more() -> None:
    two = Two(20)
    two.b.tell(Lack(LINK, 3 * USUAL_BLOCK + 100, 0), 0.0)
    assert not two.out["b"], "there are idle blocks, which are asked for otherwise"
    two.a.lacking(Lack(LINK, 3 * USUAL_BLOCK + 100, 0))
    two.a.give_owed()
    two.run()
    assert two.own == (7, 13) and two.a.lacks.there == Lack(LINK, 100, 0)
    two.a.give_owed()
    assert not two.out["a"] and two.a.available > 0


def test_blocks_go_to_who_is_more_important_not_to_the_less_and_to_equals_when_more_came_here() -> None:
    two = Two(20)
    two.a.lacking(Lack(LINK, 0, 2 * USUAL_BLOCK, 3))
    two.a.give_before(4)
    two.a.give_before(3)  # as much has come to one end as to the other
    assert two.own[0] == 10
    two.a.give_before(2)
    two.run()
    assert two.own == (8, 12) and not two.a.lacks.there.waited
    two.b.lacking(Lack(LINK, 0, 9 * USUAL_BLOCK, 3))
    two.b.give_before(3)
    two.run()
    assert two.own == (10, 10), "four blocks more have come there: half of that"


def test_a_reserve_stays_and_what_is_no_whole_block_is_kept_from_who_is_less_important() -> None:
    two = Two(6)
    two.a.lacking(Lack(LINK, 0, 100 * USUAL_BLOCK, 3))
    two.a.give_before(2)
    two.run()
    assert two.own == (1, 5) and two.a._own >= RESERVE
    assert two.a.available == 0 and two.a.allocate(32, "stream", "one") is None
    two.a.kept = 0  # with the next turn
    two.a.lacking(Lack(LINK))
    two.a.give_before(2)
    assert two.a.allocate(32, "stream", "one") is not None


def test_nothing_is_kept_from_equals_nor_for_less_than_a_block_of_this_link() -> None:
    """Blocks are twice as large as usual: what would do for one of those is not enough to give any."""
    two = Two(6, 2 * USUAL_BLOCK)
    two.a.lacks.ahead = 3 * USUAL_BLOCK
    two.a.lacking(Lack(LINK, 0, 8 * USUAL_BLOCK, 3))
    two.a.give_before(3)
    assert two.own == (3, 3) and two.a.allocate(32, "stream", "one") is not None
    two.a.lacking(Lack(LINK, USUAL_BLOCK, 0))
    two.a.give_owed()
    assert two.own == (3, 3) and two.a.allocate(32, "stream", "one") is not None


def test_an_answer_keeps_what_was_promised() -> None:
    two = Two(8)
    two.a.kept = 3 * USUAL_BLOCK
    two.a.wanted()
    two.run()
    assert two.own == (4, 4)
    two.a.kept = USUAL_BLOCK
    two.a.wanted()
    two.run()
    assert two.own == (2, 6)


lacking = st.builds(Lack, st.just(LINK), st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.integers(0, 3))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 1), lacking), max_size=30))
def test_more_is_told_at_once_and_less_when_it_lasts(steps: list[tuple[float, Lack]]) -> None:
    lacks, now, told, least = Lacks(LINK), 0.0, Lack(LINK), 0.0
    for passed, lack in steps:
        now += passed
        owed, waited = (min(octets, 1 << 20) for octets in (lack.owed, lack.waited))
        news = lacks.news(lack, now)
        told = news or told
        assert told == lacks.here
        assert told.owed > owed - USUAL_BLOCK and told.waited >= waited, "more lacks than was told"
        if told.owed > owed or told.waited >= waited + USUAL_BLOCK or (waited and told.priority > lack.priority):
            assert now - least < REST_SECONDS, "too much was told for too long"
        else:
            least = now


@given(st.lists(st.integers(-(1 << 20), 1 << 20)), st.lists(lacking), st.integers(0, 1 << 31))
def test_sums(came: list[int], consumers: list[Lack], octets: int) -> None:
    lacks, total = Lacks(LINK), Lack(LINK)
    for one in came:
        lacks.came(one)
        assert abs(lacks.ahead) <= MOST_AHEAD
    for lack in consumers:
        total = add(total, lack.owed, lack.waited, lack.priority)
    assert total.owed == sum(lack.owed for lack in consumers)
    top = max((lack.priority for lack in consumers if lack.waited), default=0)
    assert total.priority == top
    assert total.waited == sum(lack.waited for lack in consumers if lack.priority == top)
    assert less(total, octets).owed == max(0, total.owed - octets)
