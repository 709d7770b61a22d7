"""Where master keys come from, what is said of wrong ones, and that none stays where others could read it."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qswitch.agent.config import Credential, Held, MasterKeySource, Variable
from qswitch.agent.errors import StorageFailed
from qswitch.agent.lkms import maintenance, master_key
from qswitch.agent.lkms.keys import Key
from qswitch.agent.lkms.store import Store

KEY = bytes(range(32))
FORMS = {
    "hexadecimal": KEY.hex().encode(),
    "in capitals": KEY.hex().upper().encode() + b"\n",
    "base64": base64.b64encode(KEY),
    "of several lines": base64.encodebytes(KEY),
}


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.mark.parametrize("form", [*FORMS, "as it is"])
def test_a_credential(credentials: Path, form: str) -> None:
    (credentials / "master").write_bytes(FORMS.get(form, KEY))
    assert master_key.read(Credential("master")) == Key(KEY)


@pytest.mark.parametrize("form", FORMS)
def test_a_variable(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setitem(os.environb, b"MASTER", FORMS[form])
    assert master_key.read(Variable("MASTER")) == Key(KEY)
    taken = master_key.held(Variable("MASTER"))
    assert "MASTER" not in os.environ and master_key.read(taken) == Key(KEY)
    assert master_key.describe(taken) == "env:MASTER" and KEY.hex() not in repr(taken)


@pytest.mark.parametrize("text", [b"", b"abc", KEY.hex().encode()[:-2], base64.b64encode(KEY[:31]), b"\xff" * 44, b"z" * 64])
def test_what_is_no_master_key_is_told_without_a_word_of_it(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setitem(os.environb, b"MASTER", text)
    with pytest.raises(StorageFailed, match="env:MASTER must be 32 octets") as caught:
        master_key.read(Variable("MASTER"))
    assert len(text) < 4 or text[:4].decode("latin-1") not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (Variable("NOT_THERE"), "NOT_THERE is not set"),
        (Held("GONE", b"", b""), "GONE is not set"),
        (Credential("absent"), "absent: No such file"),
    ],
)
def test_a_master_key_that_is_not_there(credentials: Path, source: MasterKeySource, told: str) -> None:
    with pytest.raises(StorageFailed, match=told):
        master_key.read(source)
    assert credentials.exists()


def test_credentials_outside_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(StorageFailed, match="CREDENTIALS_DIRECTORY is not set; systemd sets it"):
        master_key.read(Credential("master"))


def test_a_variable_is_not_left_in_the_process_nor_its_children() -> None:
    program = (
        "import os, subprocess, sys\n"
        "from qswitch.agent.config import Variable\n"
        "from qswitch.agent.lkms import master_key\n"
        "held = master_key.held(Variable('MASTER'))\n"
        "assert master_key.read(held) and master_key.read(master_key.successor(held))\n"
        "child = subprocess.run(['env'], capture_output=True, check=True).stdout\n"
        "sys.stdout.buffer.write(open('/proc/self/environ', 'rb').read() + child)\n"
    )
    texts = {"MASTER": KEY.hex(), "MASTER_NEXT": KEY[::-1].hex()}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | texts, capture_output=True, check=True)
    assert b"PATH=" in done.stdout
    assert not [text for text in texts.values() if text.encode() in done.stdout]


async def opened(folder: Path, source: MasterKeySource) -> None:
    store = Store(folder / "keys.sqlite", source, False, lambda _problem: None)
    await store.open()
    store.block("link", 1, 0, 32, True, 0.0, Key(bytes(32)))  # type: ignore[arg-type]
    await store.close()


async def test_a_credential_is_rotated_to_the_one_beside_it(credentials: Path, tmp_path: Path) -> None:
    source, store = Credential("master"), tmp_path / "keys.sqlite"
    (credentials / "master").write_bytes(KEY)
    await opened(tmp_path, source)
    with pytest.raises(StorageFailed, match=r"provide the new master key as credential:master\.next"):
        maintenance.rotate(store, source)
    (credentials / "master.next").write_bytes(KEY)
    with pytest.raises(StorageFailed, match="is the master key itself"):
        maintenance.rotate(store, source)
    (credentials / "master.next").write_bytes(KEY[::-1])
    new = master_key.fingerprint(Key(KEY[::-1]))
    assert maintenance.rotate(store, source) == maintenance.Rotated(new, False)
    await opened(tmp_path, source)  # by its successor, until the keeper has put that in its place
    assert maintenance.rotate(store, source) == maintenance.Rotated(new, True)
    (credentials / "master.next").rename(credentials / "master")
    await opened(tmp_path, source)
    (credentials / "master").write_bytes(KEY)
    with pytest.raises(
        StorageFailed, match=f"its own has fingerprint {new}; credential:master has {master_key.fingerprint(Key(KEY))}"
    ):
        await opened(tmp_path, source)


async def test_a_lost_master_key_is_not_made_anew(tmp_path: Path) -> None:
    """That would hide what has happened."""
    await opened(tmp_path, tmp_path / "master.key")
    (tmp_path / "master.key").unlink()
    with pytest.raises(StorageFailed, match=r"does not open.*master\.key: No such file"):
        await opened(tmp_path, tmp_path / "master.key")
    assert not (tmp_path / "master.key").exists()
