"""Networks are read from files; what is wrong with one is named."""

from pathlib import Path

import pytest

from qswitch.integration import layout
from qswitch.integration.layout import LayoutError


def test_madrid_is_madqci() -> None:
    madrid = layout.load("madrid")
    assert len(madrid.nodes) == 9
    assert len(madrid.spans) == 9
    assert sum(span.length_km for span in madrid.spans) == pytest.approx(133.7)
    assert len({(end.node, end.interface) for span in madrid.spans for end in (span.a, span.b)}) == 18
    assert [number for number, _, _ in madrid.ports("Quevedo")] == [1, 2, 3]


def test_ids_follow_from_names() -> None:
    assert layout.load("madrid") == layout.load("madrid")
    assert layout.load("madrid").qkdn_id("Norte") != layout.load("triangle").qkdn_id("Norte")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name = 1 =", "bad.toml"),
        ('name = "x"\nspans = []', "nodes"),
        ('name = "x"\nnodes = ["A"]\n[[spans]]\nends = ["A", "B"]\nlength_km = 1\nloss_db = 1', "'B'"),
        ('name = "x"\nnodes = "A"\nspans = []', "must be a list"),
        ('name = "x"\nnodes = ["A"]\nspans = []\ncall_home = "udp"', "'udp' must be ssh or tls"),
        ('name = "x"\nnodes = ["A"]\nspans = []\nengine = "third"', "'third' is not a valid Engine"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(LayoutError, match=named):
        layout.load(str(path))


def test_an_unknown_network_names_the_known_ones() -> None:
    with pytest.raises(LayoutError, match="madrid"):
        layout.load("atlantis")
