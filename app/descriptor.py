"""Reads the network descriptor (`network.json`), so that an application is named by one word.

Of the descriptor only what an application needs is read: nodes with their addresses of ETSI 004 and 014, and
applications with their identities. Paths in it are relative to the file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .errors import DescriptorError


@dataclass(frozen=True, slots=True)
class Identity:
    """All an application needs to call its node."""

    host: str
    port: int
    uri: str
    certificate: Path
    private_key: Path
    ca: Path
    url: str = ""  # of the node's ETSI 014 interface; "": it has none
    kme_id: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    file: Path
    content: dict[str, Any]

    @classmethod
    def load(cls, where: str) -> Self:
        """`where` is the file, its directory, or the name of a network below run/. Raises DescriptorError."""
        candidates = (Path(where), Path(where) / "network.json", Path("run") / where / "network.json")
        file = next((one for one in candidates if one.is_file()), None)
        if file is None:
            raise DescriptorError(Path(where), "no network descriptor there; start a network with `qkd-network up`")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DescriptorError(file, f"cannot be read as JSON ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("apps"), list):
            raise DescriptorError(file, "is no network descriptor: it has no 'apps'")
        return cls(file, content)

    @property
    def applications(self) -> list[str]:
        return sorted(str(one["name"]) for one in self.content["apps"])

    def identity(self, application: str) -> Identity:
        """The identity of the application of that name, sae_id or URI."""
        app = self._application(application)
        home = self.file.parent
        try:
            node = self._node(app["node"])
            service = node["etsi004"]
            return Identity(
                service["host"],
                service["port"],
                app["uri"],
                home / app["cert"],
                home / app["key"],
                home / self.content["ca"],
                str(node.get("etsi014", {}).get("url", "")),
                str(node.get("etsi014", {}).get("kme_id", "")),
            )
        except KeyError as error:
            raise DescriptorError(self.file, f"lacks {error} for application {application}") from error

    def uri(self, peer: str) -> str:
        """The URI of an application given by name; a URI is returned as it is."""
        return peer if "://" in peer else str(self._application(peer)["uri"])

    def _application(self, name: str) -> dict[str, Any]:
        for one in self.content["apps"]:
            if name in (one.get("name"), one.get("sae_id"), one.get("uri")):
                return dict(one)
        raise DescriptorError(self.file, f"has no application '{name}'; it has {', '.join(self.applications)}")

    def _node(self, name: str) -> dict[str, Any]:
        for one in self.content.get("nodes", []):
            if name in (one.get("name"), one.get("qkdn_id")):
                return dict(one)
        raise DescriptorError(self.file, f"has no node '{name}'")
