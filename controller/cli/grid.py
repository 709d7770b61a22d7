"""Tables: coloured on a terminal, plain aligned columns elsewhere, so that grep and awk see what people see."""

import shutil
from dataclasses import dataclass
from typing import TextIO

from .text import printable

STYLES = {
    "ACTIVE": "green",
    "OPERATING": "green",
    "ON": "green",
    "ENABLED": "green",
    "PASSIVE": "cyan",
    "PENDING": "yellow",
    "NEW": "yellow",
    "DISCONNECTED": "yellow",
    "DISABLED": "yellow",
    "OFF": "red",
    "DOWN": "red",
    "FAILURE": "red",
    "FAILED": "red",
    "OUT": "red",
    "OUT-OF-TIME": "red",
    "ZOMBIE": "red",
}
GAP = "  "


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. Columns whose name begins with ">" are set to the right. Without `columns` it has no header."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    header: bool = True
    empty: str = ""

    def __post_init__(self) -> None:
        clean = tuple(tuple(printable(cell) for cell in row) for row in self.rows)
        object.__setattr__(self, "rows", clean)

    def write(self, file: TextIO) -> None:
        if not self.rows and self.empty:
            file.write(f"{self.empty}\n")
        elif file.isatty():
            self._write_rich(file)
        else:
            file.write(self.plain())

    def plain(self) -> str:
        names = tuple(one.removeprefix(">") for one in self.columns)
        lines = [names, *self.rows] if self.header else list(self.rows)
        widths = [max((len(line[column]) for line in lines), default=0) for column in range(len(names))]
        return "".join(GAP.join(self._padded(line, widths)).rstrip() + "\n" for line in lines)

    def _padded(self, line: tuple[str, ...], widths: list[int]) -> list[str]:
        return [
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(line, widths, self.columns, strict=True)
        ]

    def _write_rich(self, file: TextIO) -> None:
        # Imported here: only a person at a terminal waits for it.
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        box = SIMPLE_HEAD if self.header else None
        table = Table(box=box, show_header=self.header, show_edge=False, pad_edge=False, header_style="bold")
        for name in self.columns:
            table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        Console(file=file, width=max(shutil.get_terminal_size().columns, 60), highlight=False).print(table)


def pairs(*rows: tuple[str, str | None]) -> Grid:
    """Named values, one a line; those that are None or empty are left out."""
    return Grid(("", ""), tuple((name, value) for name, value in rows if value), header=False)
