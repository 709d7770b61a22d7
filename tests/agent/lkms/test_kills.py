"""Key managers killed at any time, whatever they are doing: what applications read stays equal, and no bit is used twice."""

from collections.abc import Callable
from pathlib import Path

import pytest
from campaign import PAUSE_SECONDS, VICTIMS, Campaign, Kind, blows
from campaign_audit import Audit
from campaign_node import BLOCK, ROUTES

from qswitch.agent.lkms.lines import WINDOW_BLOCKS


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Of a long campaign one wants to see how it goes."""

    def show(text: str) -> None:
        if request.node.get_closest_marker("soak"):
            with capsys.disabled():
                print(text, flush=True)

    return show


async def campaign_of(folder: Path, seed: int, say: Callable[[str], None], count: int, pause: float) -> Audit:
    """`pytest --seed NUMBER` lets the same blows fall."""
    campaign = Campaign(folder, seed, say)
    try:
        await campaign.run(count, pause)
        audit = Audit(campaign)
    finally:
        campaign.unmount()
    say(audit.table())
    assert not any(audit.problems().values()), audit.table()
    assert not campaign.received.skipped.total(), "a chunk did not come, though it waits for the one who asks again"
    mounted = any(one.disk is not None for one in campaign.nodes.values())
    assert set(campaign.struck) == set(Kind) - (set() if mounted else {Kind.FULL})
    assert audit.relayed > 100 and campaign.received.looked > 100
    # While a disk is full, a whole window of batches may wait for it, and die with it.
    allowed = campaign.kills + WINDOW_BLOCKS * len(ROUTES) * campaign.struck[Kind.FULL]
    assert audit.burnt < BLOCK * allowed, audit.table()
    return audit


@pytest.mark.parametrize("count", [6, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
async def test_killed_nodes_go_on_with_the_same_key(
    tmp_path: Path, seed: int, say: Callable[[str], None], count: int
) -> None:
    await campaign_of(tmp_path, seed, say, count, PAUSE_SECONDS)


@pytest.mark.soak
@pytest.mark.timeout(2700)
async def test_five_hundred_kills_burn_next_to_nothing(tmp_path: Path, seed: int, say: Callable[[str], None]) -> None:
    """A kill burns what is between two commits; what share that is depends on how soon the next comes: here one in two
    seconds or so, on links of two megabits a second."""
    audit = await campaign_of(tmp_path, seed, say, 20 * len(VICTIMS), 9.0)
    assert audit.kills >= 500
    assert audit.burnt < 0.001 * audit.generated, audit.table()


def test_a_seed_says_which_blows_fall() -> None:
    assert blows(50, 1) == blows(50, 1) != blows(50, 2)
