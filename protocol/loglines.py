"""How the daemons' log lines look, so that whoever reads one knows who wrote it.

What a log line tells comes from peers, clients and vendors, too: their ids, names, words. A control character in it, a
newline above all, would let them end the line and begin one of their own. So every record is one line, in which whatever
does not print stands escaped; the lines of a traceback, the last of which have such words, are indented, as no record is.
"""

import logging
import sys
from types import TracebackType

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_INDENT = "    "


def printable(text: str) -> str:
    """The text with whatever does not print, or turns the direction of what follows, in the escapes of a Python literal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


class Lines(logging.Formatter):
    """One line a record, and what belongs to it indented below."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(_INDENT + printable(line) for line in text.split("\n"))


def log_to_stderr(level: int) -> None:
    """For a daemon, once, before anything is logged."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=level, handlers=[handler])
