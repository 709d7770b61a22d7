"""What a simulated pair gets out of a fibre. Modelled, not measured: rates fall with the light that arrives.

Against published installations the law R = 7 Mb/s · 10^(-loss/10) is right within a fifth at 3.9 to 14.5 dB (Cambridge,
Tokyo) and off by up to a factor of three at 2 dB.
"""

from dataclasses import dataclass
from math import log2, log10

from .fibre import Fibre

BASE_QBER = 0.01  # imperfect optics, at any distance
DARK_LIGHT = 7.6e-4  # dark counts as a share of what arrives without loss; makes the QBER 9 % at 24 dB


@dataclass(frozen=True, slots=True)
class Performance:
    """Secret key in bit/s, QBER as a fraction of 1, signal over noise in dB; `problem` says why there is no key."""

    skr_bps: float
    qber: float
    snr_db: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RateModel:
    """Secret key rate without loss, in bit/s, and the loss that the devices no longer bridge, in dB."""

    lossless_bps: float
    limit_db: float

    def performance(self, fibre: Fibre) -> Performance:
        """What the pair gets out of this fibre now."""
        light = 10 ** (-fibre.loss_db / 10)
        undisturbed = BASE_QBER + 0.5 * DARK_LIGHT / (light + DARK_LIGHT)
        qber, snr_db = min(0.5, undisturbed + fibre.stray_qber), 10 * log10(light / DARK_LIGHT)
        if problem := self._problem(fibre, qber):
            return Performance(0.0, qber, snr_db, problem)
        return Performance(self.lossless_bps * light * secret_share(qber) / secret_share(undisturbed), qber, snr_db)

    def _problem(self, fibre: Fibre, qber: float) -> str | None:
        if fibre.cut:
            return "no light"
        if fibre.loss_db >= self.limit_db:
            return f"attenuation of {fibre.loss_db:g} dB reaches the limit of {self.limit_db:g} dB"
        if secret_share(qber) <= 0:
            return f"QBER of {qber:.1%} leaves no secret key"
        return None


def secret_share(qber: float) -> float:
    """Secret bits for each sifted bit of BB84 (Shor and Preskill): 1 - 2h(qber), zero from 11 % on."""
    if qber <= 0:
        return 1.0
    entropy = -qber * log2(qber) - (1 - qber) * log2(1 - qber)
    return max(0.0, 1 - 2 * entropy)


RATE_MODELS = {"high": RateModel(7e6, 24.0), "low": RateModel(40e3, 19.0)}
