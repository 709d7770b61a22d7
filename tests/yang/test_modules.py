"""The YANG modules: what ETSI published, as a tree; conditions that hold; no tool has anything to say against them."""

import json
import subprocess
from pathlib import Path

import pytest

from qswitch import yang

LIBYANG = "/usr/share/yang/modules/libyang"
LIBNETCONF2 = "/usr/share/yang/modules/libnetconf2"
PATH = f"{yang.FOLDER}:{LIBNETCONF2}:{LIBYANG}"
OURS = [module for module in (*yang.QKD, *yang.SERVER) if module.file.parent == yang.FOLDER]
TREE = Path(__file__).parent / "etsi-qkd-sdn-node.tree"
ID = "00000000-0000-4000-8000-00000000000a"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Elsewhere than in the project's root, which libyang would search as a whole."""
    return subprocess.run(command, cwd=yang.FOLDER, capture_output=True, encoding="utf-8", timeout=30, check=False)


def yanglint(tmp_path: Path, link: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Validates a node with one link."""
    data = tmp_path / "data.json"
    body = {"qkdn_id": ID, "qkd_links": {"qkd_link": [{"qkdl_id": ID, **link}]}}
    data.write_text(json.dumps({f"{yang.NODE}:qkd_node": body}))
    files = [str(module.file) for module in yang.QKD]
    return run("yanglint", "-i", "-t", "data", "-p", str(yang.FOLDER), "-p", LIBYANG, *files, str(data))


@pytest.mark.parametrize("module", OURS, ids=lambda module: module.name)
def test_no_tool_complains(module: yang.Module) -> None:
    for command in (
        ("yanglint", "-p", str(yang.FOLDER), "-p", LIBNETCONF2, "-p", LIBYANG, str(module.file)),
        ("pyang", "--path", PATH, str(module.file)),
    ):
        done = run(*command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_tree_is_the_published_one() -> None:
    module = next(one for one in yang.QKD if one.name == yang.NODE)
    assert run("pyang", "--path", PATH, "-f", "tree", str(module.file)).stdout == TREE.read_text()


@pytest.mark.parametrize("module", yang.QKD[:2], ids=lambda module: module.name)
def test_revisions(module: yang.Module) -> None:
    text = module.file.read_text()
    at = [text.find(f"revision {date} {{") for date in ("2026-11-23", "2022-01-30", "2020-09-30")]
    assert -1 not in at and at == sorted(at)


@pytest.mark.parametrize(
    "link",
    [
        {"qkdl_type": f"{yang.TYPES}:VIRT", "virt_prev_hop": ID, "virt_next_hop": [ID], "virt_bandwidth": 1000},
        {
            "qkdl_type": f"{yang.TYPES}:PHYS",
            "phys_channel_att": "7.250",
            "phys_wavelength": "1550",
            "phys_qkd_role": f"{yang.TYPES}:TRANSMITTER",
            "qkdl_performance": {"skr": 1, "phys_perf": [{"perf_type": f"{yang.TYPES}:QBER", "value": "0.020"}]},
        },
    ],
    ids=["virtual", "physical"],
)
def test_link_of_either_kind_is_accepted(tmp_path: Path, link: dict[str, object]) -> None:
    done = yanglint(tmp_path, link)
    assert (done.returncode, "not satisfied" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    "link",
    [
        {"qkdl_type": f"{yang.TYPES}:PHYS", "virt_prev_hop": ID},
        {"qkdl_type": f"{yang.TYPES}:VIRT", "phys_wavelength": "1550"},
        {
            "qkdl_type": f"{yang.TYPES}:VIRT",
            "qkdl_performance": {"phys_perf": [{"perf_type": f"{yang.TYPES}:QBER", "value": "0.020"}]},
        },
        {"virt_bandwidth": 1000},
        {"qkdl_type": "PHYS"},
    ],
    ids=["physical with hop", "virtual with wavelength", "virtual with QBER", "without type", "unprefixed identity"],
)
def test_link_of_mixed_kind_is_refused(tmp_path: Path, link: dict[str, object]) -> None:
    done = yanglint(tmp_path, link)
    assert done.returncode != 0 or "not satisfied" in done.stderr  # a `when` is only warned of in state data


def test_every_module_has_its_file() -> None:
    for module in (*yang.SERVER, *yang.QKD):
        assert module.file.is_file()
