"""Depictions of molecules as pages and packed studies hold them: drawn shapes only, whatever a file says."""

from __future__ import annotations

import re
from functools import partial
from xml.etree import ElementTree

MOST_BYTES = 60_000
"""Of a depiction; a molecule of 300 atoms has about 50 kB. A longer one is left out, since a page holds many."""

_SPACE = "http://www.w3.org/2000/svg"
_GEOMETRY = ("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry", "points", "transform")
_PAINT = ("fill", "stroke", "fill-opacity", "fill-rule", "opacity")
_LINES = ("stroke-width", "stroke-opacity", "stroke-linecap", "stroke-linejoin", "stroke-dasharray")
_TEXT = ("font-size", "font-family", "font-weight", "font-style", "text-anchor", "dominant-baseline")
_STYLES = frozenset({*_PAINT, *_LINES, *_TEXT})
_ATTRIBUTES = frozenset({*_GEOMETRY, *_STYLES, "viewBox", "width", "height", "style"})
_SHAPES = frozenset({"svg", "g", "path", "circle", "ellipse", "line", "rect", "polygon", "polyline", "text", "tspan"})

# Numbers, letters of paths, names of colours and functions such as `rgb(…)`; no quotes, no addresses, no `url(`.
_PLAIN = re.compile(r"[\w\s.,#%+\-()]*")
_DEFAULTS = {("stroke-opacity", "1"), ("fill-opacity", "1"), ("fill-rule", "evenodd"), ("stroke-linecap", "butt")}
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")

_UNIT = 2
"""Steps of a unit to which compact depictions are rounded: half a unit of 460, less than a pixel where one is shown."""

_MOVES = {"M": 1, "L": 1, "Q": 2}  # points that each of them takes
_TOKEN = re.compile(r"([A-Za-z])|(-?[\d.]+)")
_DRAWN = re.compile(r"[MLQZ\d\s.,-]+")


def sanitised(svg: str | None) -> str | None:
    """A depiction with nothing but shapes, letters and colours; None where there is none that can be shown.

    What is not on the lists above is left out, with all that it holds: scripts, styles, links, foreign markup, event
    handlers, references. Coordinates are cut to a tenth of a unit, which nobody sees and which saves a third.
    Depictions come from files that anybody may have written, and a page that is sent around must not act for them;
    that the page shows them as images, in which nothing runs, is the second lock.
    """
    if not svg or len(svg) > MOST_BYTES * 2 or "<!" in svg.replace("<!--", ""):  # a DTD could declare entities
        return None
    try:
        root = ElementTree.fromstring(re.sub(r"<\?xml[^>]*\?>", "", svg).strip())
    except (ElementTree.ParseError, ValueError):
        return None
    if _name_of(root) != "svg":
        return None
    cleaned = _cleaned(root)
    if cleaned is None:
        return None
    cleaned.set("xmlns", _SPACE)
    written = ElementTree.tostring(cleaned, encoding="unicode")
    return written if len(written) <= MOST_BYTES else None


def _cleaned(element: ElementTree.Element) -> ElementTree.Element | None:
    name = _name_of(element)
    if name not in _SHAPES:
        return None
    found = ElementTree.Element(name)
    for key, value in element.attrib.items():
        if key in _ATTRIBUTES and (kept := _style(value) if key == "style" else _value(key, value)):
            found.set(key, kept)
    if name in ("text", "tspan"):
        found.text = element.text
        found.tail = element.tail if name == "tspan" else None
    found.extend(child for child in map(_cleaned, element) if child is not None)
    return found


def _style(value: str) -> str:
    kept = []
    for declaration in value.split(";"):
        key, _, given = (part.strip() for part in declaration.partition(":"))
        if key in _STYLES and (key, given) not in _DEFAULTS and (plain := _value(key, given)):
            kept.append(f"{key}:{plain}")
    return ";".join(kept)


def _value(key: str, value: str) -> str:
    if not _PLAIN.fullmatch(value) or "url" in value.lower():
        return ""
    return _LONG_NUMBER.sub(partial(_rounded, key), value.strip())


def _rounded(key: str, number: re.Match[str]) -> str:
    digits = 1 if key in _GEOMETRY else 2
    return f"{float(number[0]):.{digits}f}".rstrip("0").rstrip(".") or "0"


def _name_of(element: ElementTree.Element) -> str:
    # A comment or a processing instruction has a function in the place of its name.
    return element.tag.removeprefix(f"{{{_SPACE}}}") if isinstance(element.tag, str) else ""


def compacted(svg: str) -> str:
    """The same depiction in a third of the bytes, as far as it is one that molgraft draws; any other as it is.

    Letters are outlines, at another place in every picture. Written by steps from where each begins they are equal
    texts wherever they stand, and equal texts cost a compressed file nothing. Doing it again changes nothing.

    Args:
        svg: as `sanitised` gives it.
    """
    try:
        root = ElementTree.fromstring(svg)
        frame = [float(number) * _UNIT for number in root.get("viewBox", "").split()]
        paths = list(root)
        plain = len(frame) == 4 and all(
            _name_of(path) == "path" and _DRAWN.fullmatch(path.get("d", "")) and not path.get("transform")
            for path in paths
        )
        if not plain:
            return svg
        for element in root.iter():
            element.tag = _name_of(element)
        root.set("xmlns", _SPACE)
        root.set("viewBox", " ".join(f"{number:g}" for number in frame))
        for path in paths:
            path.set("d", _by_steps(path.attrib["d"], is_line=path.get("fill") == "none"))
            if "stroke-width" in path.attrib:
                path.set("stroke-width", f"{float(path.attrib['stroke-width']) * _UNIT:g}")
        return ElementTree.tostring(root, encoding="unicode")
    except (ElementTree.ParseError, ValueError, IndexError, KeyError):
        return svg


def _by_steps(drawn: str, *, is_line: bool) -> str:
    """Path data in lower-case commands and whole numbers.

    What follows a move is rounded by its distance from it, so that an outline is the same wherever it stands.

    Args:
        drawn: path data in upper-case commands.
        is_line: whether nothing is filled, so that moves to where the pen is can be left out.
    """
    written: list[str] = []
    command, last = "", ""
    numbers: list[float] = []
    start, begun, here = (0.0, 0.0), (0, 0), (0, 0)  # of the outline, exactly and rounded; and where the pen is
    for letter, number in _TOKEN.findall(drawn):
        if letter == "Z":
            written.append("z")
            here, last = begun, ""
        elif letter:
            command, numbers = letter, []
        else:
            numbers.append(float(number))
            if len(numbers) < 2 * _MOVES[command]:
                continue
            points = list(zip(numbers[::2], numbers[1::2], strict=True))
            numbers = []
            if command == "M":
                start = points[0]
                ends = [begun := (round(start[0] * _UNIT), round(start[1] * _UNIT))]
            else:
                ends = [
                    (begun[0] + round((x - start[0]) * _UNIT), begun[1] + round((y - start[1]) * _UNIT))
                    for x, y in points
                ]
            steps = "".join(f"{' ' if step >= 0 else ''}{step}" for x, y in ends for step in (x - here[0], y - here[1]))
            name = command.lower()
            if not (is_line and written and name == "m" and steps == " 0 0"):
                written.append(steps if name == last != "m" else name + steps.lstrip(" "))
                last = name
            here = ends[-1]
    return "".join(written)
