"""Tables in HTML."""

from __future__ import annotations

from collections.abc import Sequence

from cesium.benchmark.elements import Markup, element


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Rows below a header, in a box that scrolls by itself; figures go to the right.

    A header of empty texts is left out.
    """
    numeric = [
        bool(rows) and all(not row[column] or row[column][0].isdigit() for row in rows)
        for column in range(len(header))
    ]
    kinds = ["number" if each else "" for each in numeric]
    names = (element("th", each, class_=kind) for each, kind in zip(header, kinds))
    head = element("thead", element("tr", *names)) if any(header) else Markup()
    body = (
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds)))
        for row in rows
    )
    caption = element("caption", title) if title else Markup()
    whole = element("table", caption, head, element("tbody", *body))
    return element("div", whole, class_="scroll")
