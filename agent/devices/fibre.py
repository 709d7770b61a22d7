"""The fibre between two simulated devices: a small JSON file that anyone may rewrite while they run.

The file is the one thing that both ends, `qkd-network` and a person with an editor share. It is replaced as a whole, so
a reader never sees half of it.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Fibre:
    """One span: kilometres, decibels, whether it is cut, and stray light as a fraction of 1 added to the QBER."""

    name: str
    length_km: float
    loss_db: float
    cut: bool = False
    stray_qber: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError naming the member and the rule."""
        for name in ("length_km", "loss_db", "stray_qber"):
            if not 0 <= getattr(self, name) < (0.5 if name == "stray_qber" else 10_000):
                raise ValueError(f"{name}: {getattr(self, name)} is out of range")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file. Raises ConfigurationError naming the file and what is wrong with it."""
        try:
            return cls(**_members(json.loads(path.read_text(encoding="utf-8"))))
        except OSError as error:
            raise ConfigurationError(str(path), error.strerror or str(error)) from error
        except (ValueError, TypeError) as error:
            raise ConfigurationError(str(path), f"is no fibre: {error}") from error

    def save(self, path: Path) -> None:
        """Replaces the file in one step. Raises OSError."""
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self), indent=2) + "\n")
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def with_cut(self, cut: bool) -> Self:
        """The same fibre, cut or mended."""
        return replace(self, cut=cut)

    def with_loss(self, loss_db: float) -> Self:
        """The same fibre with another attenuation."""
        return replace(self, loss_db=loss_db)

    def with_stray_qber(self, stray_qber: float) -> Self:
        """The same fibre under stray light, or an eavesdropper."""
        return replace(self, stray_qber=stray_qber)


KINDS: dict[str, type | tuple[type, ...]] = {"name": str, "cut": bool}


def _members(data: Any) -> dict[str, Any]:
    """The members of the JSON object, each of its type. Raises ValueError naming the first that is not."""
    if not isinstance(data, dict):
        raise ValueError("it must hold one JSON object")
    known = {field.name for field in fields(Fibre)}
    for name, value in data.items():
        if name not in known:
            raise ValueError(f"unknown member '{name}'")
        kind = KINDS.get(name, (int, float))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name}: {value!r} is of the wrong type")
    return data
