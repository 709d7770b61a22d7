from pathlib import Path

import pytest

from qswitch.agent.devices.fibre import Fibre
from qswitch.agent.errors import ConfigurationError


def test_a_saved_fibre_is_loaded_again(tmp_path: Path) -> None:
    fibre = Fibre("norte-concepcion", length_km=8.1, loss_db=2.9).with_cut(True).with_loss(3.1).with_stray_qber(0.02)
    fibre.save(tmp_path / "one.json")
    assert Fibre.load(tmp_path / "one.json") == Fibre("norte-concepcion", 8.1, 3.1, cut=True, stray_qber=0.02)
    assert [one.name for one in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no fibre"),
        ("[]", "must hold one JSON object"),
        ('{"name": "x", "length_km": 1}', "loss_db"),
        ('{"name": "x", "length_km": 1, "loss_db": "2"}', "loss_db: '2' is of the wrong type"),
        ('{"name": "x", "length_km": 1, "loss_db": true}', "wrong type"),
        ('{"name": "x", "length_km": 1, "loss_db": 1, "cut": 1}', "cut: 1 is of the wrong type"),
        ('{"name": "x", "length_km": 1, "loss_db": -1}', "loss_db: -1 is out of range"),
        ('{"name": "x", "length_km": 1, "loss_db": NaN}', "loss_db: nan is out of range"),
        ('{"name": "x", "length_km": 1, "loss_db": 1, "colour": 3}', "unknown member 'colour'"),
    ],
)
def test_what_is_no_fibre_is_refused_by_name(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        Fibre.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_fibre_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json: No such file"):
        Fibre.load(tmp_path / "none.json")
