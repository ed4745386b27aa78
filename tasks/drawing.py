"""A molecule drawn in characters: bonds as dots of Braille patterns, and letters where atoms are not carbon."""

from __future__ import annotations

from math import hypot

from tasks.depiction import DepictedMolecule

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a Braille pattern, by row and column
_BLANK = 0x2800
_BOND = 1.5  # the length that coordinates are in
_SHARPEST, _COARSEST = 11.0, 5.0  # dots of a bond; below, neither lines nor letters can be told apart
_APART = 2.0  # dots between the lines of a double bond
_MARGIN = 8  # dots, for letters at the edge


def as_text(molecule: DepictedMolecule, columns: int = 60, rows: int = 20) -> str | None:
    """The drawing, or None where it has no room.

    Args:
        molecule: which.
        columns, rows: the room, in characters.
    """
    if not molecule.is_drawn:
        return None
    xs, ys = zip(*molecule.points, strict=True)
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    room = (2 * columns - 2 * _MARGIN) / max(width, 1e-6), (4 * rows - _MARGIN) / max(height, 1e-6)
    scale = min(_SHARPEST / _BOND, *room)
    if scale * _BOND < _COARSEST:
        return None
    canvas = _Canvas(int(width * scale) + 2 * _MARGIN + 1, int(height * scale) + _MARGIN + 1)
    # y grows upwards in coordinates and downwards on a screen.
    places = [((x - min(xs)) * scale + _MARGIN, (max(ys) - y) * scale + _MARGIN / 2) for x, y in molecule.points]
    middle = (sum(x for x, _ in places) / len(places), sum(y for _, y in places) / len(places))
    for begin, end, lines in molecule.bonds:
        canvas.bond(places[begin], places[end], lines, middle)
    for number, (name, hydrogens, charge) in enumerate(molecule.labels):
        if name:
            beside = [b if a == number else a for a, b, _ in molecule.bonds if number in (a, b)]
            leftwards = bool(beside) and all(places[other][0] > places[number][0] + 1 for other in beside)
            canvas.label(places[number], name, hydrogens, charge, leftwards)
    return canvas.text()


class _Canvas:
    """Dots, two across and four down in each character, and letters in the place of some."""

    def __init__(self, width: int, height: int) -> None:
        self._columns, self._rows = -(-width // 2), -(-height // 4)
        self._dots: dict[tuple[int, int], int] = {}
        self._letters: dict[tuple[int, int], str] = {}

    def bond(
        self, begin: tuple[float, float], end: tuple[float, float], lines: int, middle: tuple[float, float]
    ) -> None:
        """One line, or several beside each other; the second one of two lies towards the middle of the molecule."""
        (x0, y0), (x1, y1) = begin, end
        length = hypot(x1 - x0, y1 - y0) or 1.0
        across = ((y0 - y1) / length, (x1 - x0) / length)
        towards = (middle[0] - (x0 + x1) / 2) * across[0] + (middle[1] - (y0 + y1) / 2) * across[1]
        side = _APART if towards >= 0 else -_APART
        for offset in {1: (0.0,), 2: (0.0, side), 3: (-_APART, 0.0, _APART)}[lines]:
            # What stands beside is a little shorter, so that the lines of neighbours do not cross.
            short = 0.15 if offset else 0.0
            dx, dy = across[0] * offset, across[1] * offset
            self._line(
                (x0 + (x1 - x0) * short + dx, y0 + (y1 - y0) * short + dy),
                (x1 - (x1 - x0) * short + dx, y1 - (y1 - y0) * short + dy),
            )

    def label(self, place: tuple[float, float], name: str, hydrogens: str, charge: str, leftwards: bool) -> None:
        """An element with its first letter at the atom's place; its hydrogens on the side that has no bond."""
        row, column = int(place[1] / 4), int(place[0] / 2)
        text = (hydrogens + name if leftwards else name + hydrogens) + charge
        first = column - len(hydrogens) if leftwards else column
        for offset, letter in enumerate(text):
            self._letters[row, first + offset] = letter

    def text(self) -> str:
        """All lines, without blanks at their ends and without empty ones above and below."""
        lines = []
        for row in range(self._rows):
            cells = [self._letters.get((row, column)) or self._pattern(row, column) for column in range(self._columns)]
            lines.append("".join(cells).rstrip())
        filled = [number for number, line in enumerate(lines) if line]
        lines = lines[filled[0] : filled[-1] + 1] if filled else []
        margin = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
        return "\n".join(line[margin:] for line in lines)

    def _pattern(self, row: int, column: int) -> str:
        dots = self._dots.get((row, column), 0)
        return chr(_BLANK + dots) if dots else " "

    def _line(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        steps = max(int(2 * max(abs(end[0] - begin[0]), abs(end[1] - begin[1]))), 1)
        for step in range(steps + 1):
            x = round(begin[0] + (end[0] - begin[0]) * step / steps)
            y = round(begin[1] + (end[1] - begin[1]) * step / steps)
            if x >= 0 and y >= 0:
                cell = (y // 4, x // 2)
                self._dots[cell] = self._dots.get(cell, 0) | _DOTS[y % 4][x % 2]
