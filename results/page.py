"""The shell of a page that is one file: it opens from disk, fetches nothing, and has a dark and a light theme.

Text becomes HTML only through `escape` or `fill`, so that what a run is called is never markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import orjson

# Data and styles within the page; no other source of anything. A style may stand on an element, as in the SVG of plots
# and depictions; what it could fetch (pictures, fonts) is forbidden by the rest.
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)

_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><path d='M8 1.5 13.6 4.8v6.4L8 14.5 2.4 11.2V4.8z' "
    "fill='none' stroke='#2f7dc4' stroke-width='1.6'/><circle cx='8' cy='8' r='2.1' fill='#2f7dc4'/></svg>"
)

# `<` would end the element of script that the data stand in, or begin a comment in it; the others are for readers that
# take the page as XML, or the data as JavaScript.
_UNSAFE_IN_SCRIPT = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """A value as HTML, safe within elements and in quoted attributes; `Markup` stays as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def fill(template: str, /, *values: object, **named: object) -> Markup:
    """`template.format(...)` with each value escaped; the template is our own HTML, with quoted attributes."""
    return Markup(_Escaping().vformat(template, values, named))


def join(pieces: Iterable[object], between: str = "") -> Markup:
    """Pieces of HTML, or text that is escaped, one after the other; `between` is HTML."""
    return Markup(between.join(escape(piece) for piece in pieces))


def own_file(module: str, name: str) -> str:
    """The text of a style sheet or script that lies beside a module: `own_file(__file__, "report.css")`."""
    return Path(module).with_name(name).read_text(encoding="utf-8")


def as_script_data(value: object) -> Markup:
    """A value as JSON that may stand in an element of script; NaN becomes null, numpy arrays become lists."""
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    for character, replacement in _UNSAFE_IN_SCRIPT.items():
        text = text.replace(character, replacement)
    return Markup(text)


def document(
    title: str,
    body: Markup,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    description: str = "",
    footer: Markup | None = None,
) -> str:
    """A whole page.

    The page has a bar with the theme switch (`#theme`), `body` in `<main id="content">`, and a footer. Colours are the
    variables of `page.css` (`--ground --surface --ink --dim --line --edge --accent --soft --good --bad --mark`), which
    styles should use; elements of the classes `only-light` and `only-dark` are shown in one theme.

    Args:
        title: as text; hostile characters are escaped.
        body: the content, with its own `<h1>`.
        styles: style sheets after the shell's own.
        scripts: run in order after the content, each within a function of its own, so that no names are shared;
            `data(name)` gives what is embedded.
        data: JSON values by name, made of letters and dashes; a string is embedded as it is where it is `Markup` (JSON
            that `as_script_data` made).
        description: for search engines and previews of links.
        footer: below the content.

    Raises:
        ValueError: a style or script would end its own element, or data are not JSON values or have another name.
    """
    own = (own_file(__file__, "page.js"), *(f"(() => {{\n{script}\n}})();" for script in scripts))
    sheet = "\n".join((own_file(__file__, "page.css"), *styles))
    for text in (*own, sheet):
        if "</s" in text.lower():
            raise ValueError("a style or script holds `</s`, which would end its element")
    policy = _POLICY.format(scripts=" ".join(f"'sha256-{_sha256(script)}'" for script in own))
    embedded = [_embedded(name, value) for name, value in (data or {}).items()]
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            fill('<meta http-equiv="Content-Security-Policy" content="{}">', Markup(policy)),
            '<meta name="referrer" content="no-referrer">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            fill('<meta name="description" content="{}">', description) if description else "",
            fill("<title>{}</title>", title),
            fill('<link rel="icon" href="data:image/svg+xml;base64,{}">', base64.b64encode(_ICON.encode()).decode()),
            f"<style>{sheet}</style>",
            f"<script>{own[0]}</script>",
            "</head>",
            "<body>",
            '<a class="skip" href="#content">Skip to content</a>',
            '<header class="bar"><span class="wordmark">molgraft</span>'
            '<button type="button" id="theme" aria-pressed="false" hidden>Dark theme</button></header>',
            f'<main id="content" tabindex="-1">{body}</main>',
            f'<footer class="foot">{footer}</footer>' if footer else "",
            *embedded,
            *(f"<script>{script}</script>" for script in own[1:]),
            "</body>",
            "</html>",
            "",
        )
    )


class _Escaping(Formatter):
    """Formats with escaped values; a format such as `{:.3f}` is applied first."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return escape(value if isinstance(value, Markup) else format(value, format_spec))


def _embedded(name: str, value: object) -> str:
    if not name.replace("-", "").isalpha() or not name.isascii():
        raise ValueError(f"data {name!r}: a name is made of letters and dashes")
    text = value if isinstance(value, Markup) else as_script_data(value)
    if "<" in text:
        raise ValueError(f"data {name!r}: not made by `as_script_data`")
    return f'<script type="application/json" id="data-{name}">{text}</script>'


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
