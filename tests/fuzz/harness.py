"""Coverage-guided fuzzing of what reads a NETCONF client's bytes: `python tests/fuzz/harness.py TARGET [libFuzzer options]`.

`tests/fuzz/corpus/TARGET` holds the seeds: an input that once broke something, or that reaches what no other does, is added
to them by hand. As libFuzzer has it, a folder for new finds comes first and the seeds' folder second; `-max_total_time`
bounds the run, `-timeout` the time of one input, `-rss_limit_mb` memory; the exit status is not 0 once something is found.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
with atheris.instrument_imports(include=["qswitch.protocol", "qswitch.agent.netconf"]):
    import edit_properties
    import filter_properties
    import netconf_properties


def framing(data: bytes) -> None:
    """The first octet: the version of the framing, and how large the pieces are."""
    if data:
        netconf_properties.check_framing(data[1:], bool(data[0] & 1), [1 + (data[0] >> 1)])


TARGETS = {
    "framing": framing,
    "message": netconf_properties.check_message,
    "edit": edit_properties.check_edit,
    "filter": filter_properties.check_filter,
}


def main() -> None:
    target = TARGETS.get(sys.argv.pop(1) if len(sys.argv) > 1 else "")
    if target is None:
        sys.exit(f"usage: harness.py {'|'.join(TARGETS)} [libFuzzer options and folders]")
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
