"""The coverage-guided fuzzer, for seconds here and for minutes in `make soak`; the seeds lie in `corpus/`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PEAK_MB = 400  # the interpreter, libyang's schemas and the fuzzer's own tables take less than half of it

pytest.importorskip("atheris", reason="atheris has no wheel for this machine")


@pytest.mark.parametrize("seconds", [4, pytest.param(300, marks=pytest.mark.soak)])
@pytest.mark.parametrize("target", sorted(folder.name for folder in (HERE / "corpus").iterdir()))
def test_nothing_crashes_hangs_or_grows(target: str, seconds: int, tmp_path: Path) -> None:
    (tmp_path / "found").mkdir()
    options = [
        f"-max_total_time={seconds}",
        "-timeout=5",
        f"-rss_limit_mb={PEAK_MB}",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    folders = [str(tmp_path / "found"), str(HERE / "corpus" / target), f"-dict={HERE / 'netconf.dict'}"]
    command = [sys.executable, str(HERE / "harness.py"), target, *options, *folders, f"-artifact_prefix={tmp_path}/"]
    # Forked by a small process: Linux hands the peak memory of whoever starts a program down to it.
    command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=seconds + 60)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    runs = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    assert runs is not None
    assert int(runs[1]) > 100 * seconds
