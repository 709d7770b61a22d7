import pytest
from hypothesis import given, strategies as st

from qswitch.agent.devices.fibre import Fibre
from qswitch.agent.devices.rates import RATE_MODELS, secret_share

HIGH = RATE_MODELS["high"]


def span(loss_db: float) -> Fibre:
    return Fibre("span", 10.0, loss_db)


@pytest.mark.parametrize(("loss_db", "kbps"), [(8.72, 940), (7.47, 1250), (1.4, 5070), (14.3, 260), (2.0, 4420)])
def test_modelled_rates_of_the_madrid_spans(loss_db: float, kbps: float) -> None:
    assert HIGH.performance(span(loss_db)).skr_bps == pytest.approx(kbps * 1000, rel=0.01)


@given(st.floats(0, 23.9), st.floats(0, 23.9))
def test_more_loss_is_less_key_and_more_errors(one: float, other: float) -> None:
    near, far = HIGH.performance(span(min(one, other))), HIGH.performance(span(max(one, other)))
    assert near.skr_bps >= far.skr_bps > 0
    assert 0.01 < near.qber <= far.qber < 0.11
    assert near.snr_db >= far.snr_db


@pytest.mark.parametrize(
    ("fibre", "problem"),
    [
        (span(1).with_cut(True), "no light"),
        (span(24), "attenuation of 24 dB reaches the limit of 24 dB"),
        (span(1).with_stray_qber(0.11), "QBER of 12.0% leaves no secret key"),
    ],
)
def test_why_there_is_no_key(fibre: Fibre, problem: str) -> None:
    performance = HIGH.performance(fibre)
    assert (performance.skr_bps, performance.problem) == (0.0, problem)


def test_stray_light_costs_key() -> None:
    calm, disturbed = HIGH.performance(span(3)), HIGH.performance(span(3).with_stray_qber(0.03))
    assert 0 < disturbed.skr_bps < 0.8 * calm.skr_bps
    assert disturbed.qber == pytest.approx(calm.qber + 0.03)


def test_secret_share_ends_at_eleven_percent() -> None:
    assert secret_share(0.0) == 1.0
    assert secret_share(0.10) > 0
    assert secret_share(0.111) == secret_share(0.3) == 0.0
