"""One description of a table, shown in a terminal (rich), in a notebook (HTML) and as plain text.

Invariants
- What a node said is shown as text, never interpreted: HTML is escaped, rich markup and control characters are inert.

This module does not: decide what is in a table.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import rich.box
import rich.console
import rich.table
import rich.text

from pysytff.errors import UnknownNameError
from pysytff.names import nearest


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def __rich__(self) -> rich.console.Group:
        grid = rich.table.Table(title=_text(self.title), box=rich.box.SIMPLE_HEAD, title_justify="left")
        for column in self.columns:
            # An id that is cut or folded cannot be copied.
            grid.add_column(_text(column), overflow="fold", no_wrap=column.split()[-1:] == ["id"])
        for row in self.rows:
            grid.add_row(*(_text(cell(value)) for value in row))
        return rich.console.Group(grid, *([_text(self.note)] if self.note else []))

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell(value))}</td>" for value in row) + "</tr>" for row in self.rows
        )
        note = f"<p>{'<br>'.join(map(html.escape, self.note.splitlines()))}</p>" if self.note else ""
        title = html.escape(self.title)
        return f"<div><b>{title}</b><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}</div>"

    def __str__(self) -> str:
        out = io.StringIO()
        rich.console.Console(file=out, width=120, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())


def cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
        return "; ".join(", ".join(map(cell, item.values())) for item in value)  # joined data, say
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    return str(value)


def _text(value: str) -> rich.text.Text:
    return rich.text.Text("".join(char if char.isprintable() or char == "\n" else "�" for char in value))


class Tabular:
    """Shows ``table()`` wherever the object is displayed."""

    def table(self) -> Table:
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(self.table())

    def __str__(self) -> str:
        return str(self.table())

    def __rich__(self) -> Table:
        return self.table()

    def _repr_html_(self) -> str:
        return self.table().html()


Item = TypeVar("Item")


class Listing(Tabular, Sequence[Item], Generic[Item]):
    """A list that is also indexed by name or id. A snapshot: ask the domain again for a newer one."""

    def __init__(self, items: Sequence[Item], title: str, columns: Sequence[str]) -> None:
        self._items = list(items)
        self._title = title
        self._columns = columns

    @overload
    def __getitem__(self, key: int) -> Item: ...
    @overload
    def __getitem__(self, key: str) -> Item: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Item]: ...
    def __getitem__(self, key: int | str | slice) -> Item | Sequence[Item]:
        """Raises ``IndexError`` for a position, ``UnknownNameError`` (a ``KeyError``) for a name or id."""
        if not isinstance(key, str):
            return self._items[key]
        for attribute in ("id", "name"):
            found = [item for item in self._items if getattr(item, attribute, None) == key]
            if len(found) > 1:
                raise UnknownNameError(f"several of {self._title.lower()} are called {key!r}: use the id")
            if found:
                return found[0]
        known = [str(getattr(item, "name", None) or getattr(item, "id", "")) for item in self._items]
        raise UnknownNameError(f"none of {self._title.lower()} is called {key!r}{nearest(key, known)}")

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def table(self) -> Table:
        rows = [
            (index, *(_attribute(item, column) for column in self._columns)) for index, item in enumerate(self._items)
        ]
        headings = [column.replace(".", " ").replace("_", " ") for column in self._columns]
        return Table(self._title, ("", *headings), rows, note="" if rows else "(none)")


def _attribute(item: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        item = getattr(item, name, None)
    return item
