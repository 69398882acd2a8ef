"""HTML from parts, everything that comes from a spec escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already."""


def join(*parts: str) -> Markup:
    """Parts that are HTML, one a line."""
    return Markup("\n".join(part for part in parts if part))


def element(name: str, *content: str, **attributes: object) -> Markup:
    """`<name …>content</name>`. Content that is no Markup is escaped, and so are attributes.

    `class_` is the attribute `class`; a `_` in a name is a hyphen; None leaves an attribute out.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    words = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    inside = "".join(each if isinstance(each, Markup) or each.startswith("<") else escape(each) for each in content)
    return Markup(f"<{name}{words}>{inside}</{name}>")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> Markup:
    """A table; all columns but the first hold numbers, unless said otherwise."""
    titles = "".join(element("th", each, scope="col") for each in header)
    lines = [
        "".join(
            [
                element("th", row[0], scope="row"),
                *(element("td", each, class_="number" if numbers else None) for each in row[1:]),
            ]
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return Markup(f"<div class=wide><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>")
