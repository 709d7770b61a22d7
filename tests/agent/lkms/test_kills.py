"""Key managers killed at any time, whatever they are doing: what applications read stays equal, and no bit is used twice."""

from pathlib import Path

import pytest
from campaign import Campaign, Kind, blows
from campaign_audit import Audit
from campaign_node import BLOCK, ROUTES

from qswitch.agent.lkms.lines import WINDOW_BLOCKS


@pytest.mark.parametrize("count", [6, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
async def test_killed_nodes_go_on_with_the_same_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int, count: int
) -> None:
    """`pytest --seed NUMBER` lets the same blows fall."""

    def say(text: str) -> None:
        if count > 100:
            with capsys.disabled():
                print(text, flush=True)

    campaign = Campaign(tmp_path, seed, say)
    try:
        await campaign.run(count)
        audit = Audit(campaign)
    finally:
        campaign.unmount()
    say(audit.table())
    assert not any(audit.problems().values()), audit.table()
    assert not campaign.received.skipped.total(), "a chunk did not come, though it waits for the one who asks again"
    mounted = any(one.disk is not None for one in campaign.nodes.values())
    assert set(campaign.struck) == set(Kind) - (set() if mounted else {Kind.FULL})
    assert audit.relayed > 100 and campaign.received.looked > 100
    # The share is a matter of pace. While a disk is full, a whole window of batches may wait for it, and die with it.
    allowed = campaign.kills + WINDOW_BLOCKS * len(ROUTES) * campaign.struck[Kind.FULL]
    assert audit.burnt < BLOCK * allowed, audit.table()


def test_a_seed_says_which_blows_fall() -> None:
    assert blows(50, 1) == blows(50, 1) != blows(50, 2)
