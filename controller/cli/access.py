"""Where the controller is and how to be let in: from options, or from the descriptor of a network.

The descriptor (`network.json`) is what `qkd-network up` writes; its paths are relative to it. An option given beside it
wins over what it says. The token is read at once and never shown.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

RUN = Path("run")
DESCRIPTOR = "network.json"
HINT = (
    "start one with `qkd-network up madrid`, or say which one with --network FILE (or QKDCTL_NETWORK), "
    "or give --url, --ca and --token-file"
)


@dataclass(frozen=True, slots=True)
class Access:
    """`ca` None trusts what the system trusts. `source` says in messages where the token came from."""

    url: str
    ca: Path | None
    token: str = field(repr=False)
    source: str

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise click.ClickException(f"'{self.url}' is not an https:// address: the token travels under TLS only")


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """The global options of the command line, as given."""

    network: str | None = None
    url: str | None = None
    ca: Path | None = None
    token_file: Path | None = None


def find(options: AccessOptions, directory: Path = Path()) -> Access:
    """The access that the options describe, looked up from `directory`. Raises ClickException saying what is missing."""
    described = _described(options, directory)
    url, ca = options.url or described.get("url"), options.ca or described.get("ca")
    token_file = options.token_file or described.get("token_file")
    if not url or not token_file:
        missing = "--url" if not url else "--token-file"
        raise click.ClickException(f"{missing} is missing: give it, or a network's descriptor with --network")
    return Access(str(url), Path(ca) if ca else None, _read_token(Path(token_file)), str(token_file))


def _described(options: AccessOptions, directory: Path) -> dict[str, Any]:
    """`url`, `ca`, `token_file` of the descriptor, paths resolved; empty when options do without one."""
    if options.network is None and options.url is not None:
        return {}
    path = _named(options.network, directory) if options.network else _only(directory)
    try:
        controller = json.loads(path.read_text(encoding="utf-8"))["controller"]
        url, files = controller["url"], {name: controller.get(name) for name in ("ca", "token_file")}
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}: {HINT}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.ClickException(f"{path} does not describe a network: it needs controller.url and .token_file") from error
    return {"url": url, **{name: path.parent / file for name, file in files.items() if file}}


def _named(network: str, directory: Path) -> Path:
    """`network` is the path of a descriptor, of the directory it is in, or the name of a network under run/."""
    path = directory / network
    candidates = (path, path / DESCRIPTOR, directory / RUN / network / DESCRIPTOR)
    return next((one for one in candidates if one.is_file()), path)


def _only(directory: Path) -> Path:
    found = sorted((directory / RUN).glob(f"*/{DESCRIPTOR}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise click.ClickException(f"no network here (no {RUN}/*/{DESCRIPTOR} in {directory.resolve()}): {HINT}")
    names = ", ".join(one.parent.name for one in found)
    raise click.ClickException(f"several networks are here ({names}): say which one with --network NAME or QKDCTL_NETWORK")


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read the token file {path}: {error}") from error
    if not token or not token.isascii() or any(one.isspace() for one in token):
        raise click.ClickException(f"the token file {path} does not hold a token (one word on one line)")
    return token
