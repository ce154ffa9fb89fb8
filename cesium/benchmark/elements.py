"""HTML by functions: whatever is not HTML already is escaped, so no text of a report can be markup.

Thread safety: the functions hold no state.
"""

from __future__ import annotations

from html import escape


class Markup(str):
    """HTML made here.  Plain texts are escaped when they become part of an element."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element.  Attributes: a final `_` is dropped and `_` inside becomes `-`; "" are left out.

    Children that are not Markup are escaped.
    """
    opening = "".join(
        f' {attribute.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for attribute, value in attributes.items()
        if value != ""
    )
    return Markup(f"<{name}{opening}>{joined(*children)}</{name}>")


def joined(*children: str) -> Markup:
    """Children one after another, without an element around them."""
    return Markup("".join(each if isinstance(each, Markup) else escape(each) for each in children))


def percent(fraction: float) -> str:
    """A length in CSS."""
    return f"{fraction * 100:.2f}%"
