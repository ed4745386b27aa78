"""What a run will ask for and about what it will cost, before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.dialogues.base import Generator, Reply, Subject

# Byte-pair vocabularies of current models: about four characters a token in English, two in SMILES and names.
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_TURN = 60
_TOKENS_PER_MESSAGE = 4


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Requests that are still to be made, retries not counted, and their tokens.

    `price` is in the currency of the prices that were given, None where none were.
    """

    requests: int
    tokens_in: int
    tokens_out: int
    price: float | None

    def in_words(self) -> str:
        """One line for people."""
        price = (
            "; give --price-in and --price-out for a price"
            if self.price is None
            else f"; price about {self.price:,.2f}"
        )
        return (
            f"{self.requests:,} requests, about {self.tokens_in:,} tokens in and {self.tokens_out:,} out{price} "
            "(an estimate: retries come on top)"
        )


def estimate(
    generator: Generator,
    zero_shot: Sequence[Subject],
    in_context: Sequence[Subject],
    shots: int,
    known: Sequence[Reply],
    turns: tuple[int, int],
    prices: tuple[float | None, float | None] = (None, None),
) -> CostEstimate:
    """Estimate the requests that are left.

    Args:
        generator: whose prompts count.
        zero_shot: molecules asked for without exemplars.
        in_context: molecules asked for with `shots` exemplars, of which the length is not known yet.
        shots: exemplars in each prompt.
        known: replies at hand, whose length tells that of further ones.
        turns: bounds of the number of turns, for where no reply is at hand.
        prices: of a million tokens in and out.
    """
    counted = [reply.tokens_out / reply.requests for reply in known if reply.tokens_out and reply.requests]
    out = sum(counted) / len(counted) if counted else _TOKENS_PER_TURN * sum(turns) / 2
    subjects = [*zero_shot, *in_context]
    own = [_tokens_of(generator, subject) for subject in subjects]
    contexts = [_context_tokens(subject) for subject in subjects]
    per_exemplar = (sum(contexts) / len(contexts) if contexts else 0.0) + out
    tokens_in = round(sum(own) + len(in_context) * shots * per_exemplar)
    tokens_out = round(out * len(subjects))
    return CostEstimate(len(subjects), tokens_in, tokens_out, price(tokens_in, tokens_out, prices))


def price(tokens_in: int, tokens_out: int, prices: tuple[float | None, float | None]) -> float | None:
    """What so many tokens cost; None where a price per million is not known."""
    if prices[0] is None or prices[1] is None:
        return None
    return (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6


def _tokens_of(generator: Generator, subject: Subject) -> float:
    prompt = generator.prompt(subject, ())
    text = sum(len(message["content"]) for message in prompt) / _CHARACTERS_PER_TOKEN
    dense = (len(subject.smiles) + len(subject.iupac)) / _CHARACTERS_PER_TOKEN  # these count twice
    return text + dense + _TOKENS_PER_MESSAGE * len(prompt)


def _context_tokens(subject: Subject) -> float:
    return (len(subject.caption) + 2 * len(subject.smiles) + 2 * len(subject.iupac)) / _CHARACTERS_PER_TOKEN
