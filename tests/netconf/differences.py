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


_READS = "sysrepo asks no rule about executing get, get-config and get-data; data are hidden all the same"
_LOOKS = "data-exists and data-missing tell who may not change a node whether it is there: sysrepo compares before it asks"
_EXECUTION = "RFC 8341 clause 3.4.4: of all operations close-session alone is executed without asking"

DIFFERENCES: tuple[Difference, ...] = (
    *(
        Difference("netopeer2", case, _READS, _EXECUTION)
        for case in (
            "test_get_is_refused*",
            "test_execution?3.4.4-execution-of-get-obeys-the-rules?",
            "test_execution?3.4.4-execution-of-get-config-obeys-the-rules?",
            "test_execution?3.1.1-execution-of-get-data-obeys-the-rules?",
            "test_operation?get-config-*-monitor?",
            "test_operation?get-data-*-monitor?",
            "test_a_user_without_a_role_can_do_nothing",
        )
    ),
    *(
        Difference("netopeer2", case, _LOOKS, "RFC 8341 clause 3.2.5: what may not be accessed is not told of")
        for case in (
            "test_an_error_keeps_secrets",
            "test_what_is_not_there_and_guarded",
            "test_what_is_there_is_told_to_whom_may_change_it?3.2.5-*-is-denied-before-it-is-*",
            "test_what_is_there_is_told_to_whom_may_change_it?3.4.5-a-rule-for-a-path-holds-*",
            "test_what_is_there_is_told_to_whom_may_change_it?3.4.5-a-rule-for-the-list-entry-does?",
        )
    ),
)


def difference(engine: str, case: str) -> Difference | None:
    """The row for a case on an engine."""
    return next((one for one in DIFFERENCES if one.engine == engine and fnmatchcase(case, one.case)), None)
