"""Where the engines differ, with the RFC's verdict. A case fails as expected on an engine only by a row of this table."""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Difference:
    """What one engine does otherwise than the RFC says, or than the other does."""

    engine: str
    case: str  # name of the test as pytest prints it, without the engine; `*` stands for anything
    does: str
    verdict: str  # what the RFC says of it


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "builtin",
        "test_an_error_keeps_secrets",
        "data-exists and data-missing tell who may not read a node that it is there: sysrepo compares before it asks NACM",
        "RFC 6241 clause 4.3: must not; access-denied should come first",
    ),
)


def difference(engine: str, case: str) -> Difference | None:
    """The row for a case on an engine."""
    return next((one for one in DIFFERENCES if one.engine == engine and fnmatchcase(case, one.case)), None)
