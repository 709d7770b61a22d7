"""What others may write into a log line, and may not make of it."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from qswitch.protocol.loglines import Lines, printable

FORGED = "2026-11-25 12:00:00,000 CRITICAL qswitch.agent.lkms.store key store failed"
ROOT = Path(__file__).parents[2]


def formatted(message: str, *values: object, error: BaseException | None = None) -> str:
    about = None if error is None else (type(error), error, error.__traceback__)
    return Lines().format(logging.LogRecord("a", logging.INFO, "a.py", 1, message, values, about))


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n", "\v", "\f", "\x1b[2K\x1b[1G", "\x85", "\u2028", "\u2029", "\x00"])
def test_no_id_ends_a_line(ending: str) -> None:
    line = formatted("pair registers master=%s slave=%s", f"qkd://a/b{ending}{FORGED}", "c")
    assert line.isprintable() and len(line.splitlines()) == 1
    assert line.endswith(f"{FORGED} slave=c")


def test_what_prints_is_left_as_it_is() -> None:
    text = "qkd://knoten/Anwendung-ß?x=1\\n „日本“ 🔑"
    assert printable(text) == text


def test_what_does_not_print_is_escaped() -> None:
    assert printable("a\nb\u202ec\x07\ud800") == "a\\nb\\u202ec\\x07\\ud800"


def test_no_text_of_an_error_looks_like_a_record() -> None:
    try:
        raise ValueError(f"unreadable\n{FORGED}")
    except ValueError as error:
        lines = formatted("call failed", error=error).split("\n")
    assert lines[0].endswith("INFO a call failed") and "Traceback" in lines[1]
    assert all(one.startswith("    ") and one.isprintable() for one in lines[1:])
    assert lines[-1] == f"    {FORGED}"


@pytest.mark.parametrize("daemon", ["agent/main.py", "agent/netconf/main.py", "controller/main.py"])
def test_every_daemon_logs_so(daemon: str) -> None:
    source = (ROOT / daemon).read_text(encoding="utf-8")
    assert "log_to_stderr(" in source and "basicConfig" not in source


def test_it_goes_to_stderr() -> None:
    code = (
        "import logging; from qswitch.protocol.loglines import log_to_stderr; log_to_stderr(logging.INFO); "
        f"logging.info('said %s', 'x\\n{FORGED}'); logging.debug('not said')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "" and ended.stderr.endswith(f" INFO root said x\\n{FORGED}\n") and ended.stderr.count("\n") == 1
