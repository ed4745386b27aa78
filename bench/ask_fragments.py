"""Pieces of the page of `molgraft ask`: what is shown of a molecule and of a conversation, as HTML.

All text that comes from data, models or people passes `escaped`. Pictures are made of paths and numbers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from bench.conversation import Answer, Conversation, Exchange, Observation, most_attended
from tasks.depiction import MOST_DRAWN, DepictedMolecule, as_svg

MEAN = "mean of all"
"""The choice that colours atoms by the mean over levels."""
NOTHING = "nothing"


def escaped(text: str) -> str:
    """Text as HTML; braces and dollars too, since the page's toolkit fills templates that it finds in HTML."""
    shown = escape(text, quote=True)
    return shown.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def heading(name: str, parts: Mapping[str, str], notes: Sequence[str]) -> str:
    """Which run this is, and what one should know of it."""
    chips = "".join(f"<li><span>{escaped(what)}</span>{escaped(value)}</li>" for what, value in parts.items())
    said = "".join(f"<p class='mg-note'>{escaped(note)}</p>" for note in notes)
    return f"<header class='mg-head'><h1>{escaped(name)}</h1><ul class='mg-chips'>{chips}</ul>{said}</header>"


def picture(molecule: DepictedMolecule | None, observed: Observation | None, coloured_by: str) -> str:
    """The molecule, its atoms coloured by where the projector looked."""
    if molecule is None:
        return "<div class='mg-card mg-empty'>Name a molecule above.</div>"
    weights = None
    if observed is not None and coloured_by != NOTHING:
        weights = observed.on_atoms.get(coloured_by, observed.mean_on_atoms)
    facts = (
        f"<figcaption><b>{_formula(molecule.formula)}</b> {len(molecule.symbols)} atoms"
        f"<code>{escaped(_short(molecule.canonical))}</code></figcaption>"
    )
    drawn = (
        as_svg(molecule, weights, embedded=True)
        if molecule.is_drawn
        else f"<p class='mg-empty'>No picture: it has more than {MOST_DRAWN} atoms.</p>"
    )
    return f"<figure class='mg-card mg-molecule'>{drawn}{facts}{_legend(molecule, weights)}</figure>"


def choices(observed: Observation | None) -> list[str]:
    """What atoms can be coloured by."""
    levels = list(observed.on_atoms) if observed is not None else []
    return [MEAN, *levels, NOTHING] if levels else []


def gates(observed: Observation | None) -> str:
    """Gates and weights of levels as bars; nothing where the projector has none."""
    if observed is None or not observed.gates:
        return ""
    blocks = []
    for name, values in observed.gates.items():
        most = max(1.0, *values.values())
        rows = "".join(
            f"<dt>{escaped(level)}</dt><dd><i style='width:{100 * max(value, 0) / most:.1f}%'></i></dd>"
            f"<dd class='mg-number'>{value:.2f}</dd>"
            for level, value in values.items()
        )
        blocks.append(f"<h2>{escaped(name)}</h2><dl class='mg-bars'>{rows}</dl>")
    return f"<section class='mg-card'>{''.join(blocks)}</section>"


def talk(conversation: Conversation) -> str:
    """The conversation so far, both answers to a question beside each other."""
    if not conversation.exchanges:
        hint = " An empty question asks the run's own." if conversation.own_questions else ""
        return f"<div class='mg-talk mg-card mg-empty'><p>Nothing asked yet.{hint}</p></div>"
    turns = "".join(map(_turn, conversation.exchanges))
    return f"<div class='mg-talk mg-card' role='log' aria-live='polite' tabindex='0'>{turns}</div>"


def problem(message: str) -> str:
    """A mistake, said; nothing for an empty message."""
    return f"<p class='mg-problem' role='alert'>{escaped(message)}</p>" if message else ""


def _turn(exchange: Exchange) -> str:
    question = f"<p class='mg-question'>{escaped(exchange.question)}</p>"
    if exchange.without_graph is None:
        return (
            f"<article>{question}<div class='mg-answers mg-single'>{_answer('answer', exchange.answer)}</div></article>"
        )
    with_graph = _answer("with the graph", exchange.answer, "mg-with")
    without = _answer("without the graph", exchange.without_graph)
    same = exchange.answer.text == exchange.without_graph.text
    remark = "<p class='mg-same'>Both answers are the same.</p>" if same else ""
    return f"<article>{question}<div class='mg-answers'>{with_graph}{without}</div>{remark}</article>"


def _answer(heading: str, answer: Answer, extra: str = "") -> str:
    cut = " <abbr title='cut at the longest length'>[...]</abbr>" if answer.stop == "length" else ""
    text = escaped(answer.text) or "<em>(nothing)</em>"
    return f"<section class='mg-answer {extra}'><h3>{heading}</h3><p>{text}{cut}</p></section>"


def _legend(molecule: DepictedMolecule, weights: Sequence[float] | None) -> str:
    if weights is None:
        return ""
    most = most_attended(molecule, weights)
    named = "".join(f"<li>{escaped(atom)} <b>{share:.0%}</b></li>" for atom, share in most)
    return f"<div class='mg-legend'><span>attention</span><ul>{named}</ul></div>"


def _formula(formula: str) -> str:
    return "".join(f"<sub>{letter}</sub>" if letter.isdigit() else escaped(letter) for letter in formula)


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
