"""An installation of netopeer2 for tests: its layout, its list of modules, and a program that stands where the server would.

The program takes the server's options, demands its modules of the real sysrepo repository in the server's words, writes the
pid file once it is set up, logs in the server's form and ends on SIGTERM. It serves no NETCONF.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = """#!{python}
import getopt, json, os, signal, subprocess, sys, time
from pathlib import Path

def log(level, text):
    print(f"[{{level}}]: NP: {{text}}", file=sys.stderr, flush=True)

if "-V" in sys.argv:
    print("netopeer2-server 2.8.7")
    sys.exit()
options = dict(getopt.getopt(sys.argv[1:], "dFhVp:f:t:x:v:c:U:")[0])
prefix = Path(__file__).parent.parent
names = {{name: os.environ.get(name) for name in ("SYSREPO_REPOSITORY_PATH", "SYSREPO_SHM_PREFIX")}}
with (prefix / "calls").open("a") as calls:
    calls.write(json.dumps({{"pid": os.getpid(), "options": options, **names}}) + "\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.alarm(120)  # whatever a test forgets
listed = subprocess.run(["sysrepoctl", "-l"], capture_output=True, text=True, check=True).stdout
rows = [[cell.strip() for cell in line.split("|")] for line in listed.splitlines() if line.count("|") > 3]
here = {{row[0]: row[-1].split() for row in rows if row[2].startswith("I")}}
for name, features in json.loads((prefix / "needs").read_text()).items():
    if name not in here:
        log("ERR", f'Module "{{name}}" not implemented in sysrepo.')
        sys.exit(1)
    for feature in features:
        if feature not in here[name]:
            log("ERR", f'Module "{{name}}" feature "{{feature}}" not enabled in sysrepo.')
            sys.exit(1)
try:
{before}
    Path(options["-p"]).write_text(f"{{os.getpid()}}\\n")
{after}
    signal.pause()
finally:
    Path(options["-p"]).unlink(missing_ok=True)
"""

MODULE = """module {name} {{
  yang-version 1.1;
  namespace "urn:{name}";
  prefix m;
  revision {revision};
  feature one;
  feature local-user-auth-none;
  leaf note {{ type string; }}
  {more}
}}
"""


@dataclass
class Installation:
    """`prefix` with sbin, scripts and modules as an installation of netopeer2 has them."""

    prefix: Path
    listed: list[str] = field(default_factory=list)
    needs: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in "sbin", "share/netopeer2/scripts", "share/yang/modules/netopeer2":
            (self.prefix / folder).mkdir(parents=True)
        self.program()
        self.need("standin")

    @property
    def server(self) -> Path:
        return self.prefix / "sbin" / "netopeer2-server"

    @property
    def modules(self) -> Path:
        return self.prefix / "share/yang/modules/netopeer2"

    def program(self, after: str = "pass", before: str = "pass") -> None:
        """Writes the program; the statements run once it serves, and just before."""
        self.server.write_text(PROGRAM.format(python=sys.executable, before=_body(before), after=_body(after)))
        self.server.chmod(0o755)

    def need(self, name: str, revision: str = "2026-01-01", features: tuple[str, ...] = (), more: str = "") -> Path:
        """A module of ours that the program demands; its file."""
        file = self.modules / f"{name}@{revision}.yang"
        file.write_text(MODULE.format(name=name, revision=revision, more=more))
        self.enlist(f"{name}@{revision}", features)
        self.needs[name] = list(features)
        (self.prefix / "needs").write_text(json.dumps(self.needs))
        return file

    def enlist(self, module: str, features: tuple[str, ...] = ()) -> None:
        """Puts a module on netopeer2's list, in place of any other revision."""
        name = module.partition("@")[0]
        self.listed = [one for one in self.listed if not one.startswith(f"{name}@")]
        self.listed.append(f"{module}.yang" + "".join(f" -e {one}" for one in features))
        lines = "\n".join(f'"{one}"' for one in self.listed)
        (self.prefix / "share/netopeer2/scripts/common.sh").write_text(f"# of this version\nNP2_MODULES=(\n{lines}\n)\n")

    def calls(self) -> list[dict[str, Any]]:
        """How the program was called, in order."""
        file = self.prefix / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _body(statements: str) -> str:
    return "\n".join(f"    {line}" for line in statements.splitlines())


def until(true: Callable[[], object], what: str, seconds: float = 15) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)
