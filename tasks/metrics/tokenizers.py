"""The tokenizers on which caption metrics are computed; the same captions score differently on each of them."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path

from tasks.base import TaskError
from tasks.locations import find, where_looked

SCIBERT_VOCABULARY = "scibert_scivocab_uncased/vocab.txt"
SCIBERT_ENTRIES = 31_090
T5_TOKENIZER = "oracle_predictions/t5_tokenizer.json.gz"
T5_ENTRIES = 32_100

_WORD = r"\w+|[^\w\s]"


@dataclass(frozen=True)
class Tokenizer:
    """A function from texts to tokens, and what identifies it.

    Args:
        name: as scores are labelled with.
        sha256: of its vocabulary file; of its rule where it has no file.
        split: the tokens of each text, in order.
        packages: name and version of the packages that tokenize.
    """

    name: str
    sha256: str
    split: Callable[[Sequence[str]], list[list[str]]]
    packages: Mapping[str, str] = field(default_factory=dict)


def words() -> Tokenizer:
    """Lower-cased runs of letters, digits and `_`, and single marks: ours, and without any file."""
    pattern = re.compile(_WORD)
    return Tokenizer(
        name="words",
        sha256=hashlib.sha256(f"lower {_WORD}".encode()).hexdigest(),
        split=lambda texts: [pattern.findall(text.lower()) for text in texts],
    )


def scibert(path: str | None = None) -> Tokenizer:
    """SciBERT's uncased word pieces as MolT5's evaluation script makes them.

    At most 512 pieces per text; no special token is added, and `[PAD]`, `[CLS]`, `[SEP]` that stand in a text are
    removed after the cut.

    Args:
        path: `vocab.txt`, or the folder that holds it; by default the data folders are searched.

    Raises:
        TaskError: there is no such file, or it is not SciBERT's vocabulary.
    """
    file = _located(path, SCIBERT_VOCABULARY, "SciBERT's vocabulary (allenai/scibert_scivocab_uncased, vocab.txt)")
    from tokenizers import BertWordPieceTokenizer

    contents = file.read_bytes()
    entries = contents.count(b"\n") + (not contents.endswith(b"\n"))
    if entries != SCIBERT_ENTRIES:
        raise TaskError(f"{file}: {entries:,} entries, but SciBERT's uncased vocabulary has {SCIBERT_ENTRIES:,}")
    pieces = BertWordPieceTokenizer(str(file), lowercase=True)
    # Some versions of tokenizer libraries fall back silently to an almost empty vocabulary, which inflates every score.
    if pieces.get_vocab_size() != SCIBERT_ENTRIES:
        raise TaskError(f"{file}: {pieces.get_vocab_size():,} distinct entries were read of {SCIBERT_ENTRIES:,}")
    special = {"[PAD]", "[CLS]", "[SEP]"}

    def split(texts: Sequence[str]) -> list[list[str]]:
        encodings = pieces.encode_batch(list(texts), add_special_tokens=False)
        return [[token for token in encoding.tokens[:512] if token not in special] for encoding in encodings]

    return Tokenizer("scibert", hashlib.sha256(contents).hexdigest(), split, _tokenizers_version())


def t5(path: str | None = None) -> Tokenizer:
    """T5's pieces as MolReGPT's evaluation script makes them: no special token is added, and nothing is cut.

    Args:
        path: `tokenizer.json`, also gzipped, or the folder that holds it; by default the data folders are searched.

    Raises:
        TaskError: there is no such file, or it is not T5's tokenizer.
    """
    file = _located(path, T5_TOKENIZER, "T5's tokenizer (of laituan245/molt5-base-smiles2caption, tokenizer.json)")
    from tokenizers import Tokenizer as Pieces

    contents = file.read_bytes()
    try:
        text = gzip.decompress(contents) if contents.startswith(b"\x1f\x8b") else contents
        pieces = Pieces.from_str(text.decode("utf-8"))
    except Exception as error:  # the library raises a bare Exception for whatever it cannot read
        raise TaskError(f"{file}: not a tokenizer.json ({error})") from error
    if pieces.get_vocab_size() != T5_ENTRIES:
        raise TaskError(f"{file}: {pieces.get_vocab_size():,} entries, but T5's tokenizer has {T5_ENTRIES:,}")
    pieces.no_truncation()
    pieces.no_padding()

    def split(texts: Sequence[str]) -> list[list[str]]:
        return [encoding.tokens for encoding in pieces.encode_batch(list(texts), add_special_tokens=False)]

    return Tokenizer("t5", hashlib.sha256(contents).hexdigest(), split, _tokenizers_version())


def _located(path: str | None, default: str, what: str) -> Path:
    """The file named by the user, or found under the data folders."""
    advice = "; --set tokenizer=PATH names it elsewhere"
    if path is None:
        found = find(default)
        if found is None:
            raise TaskError(f"{what} is missing: {where_looked(default)}{advice}")
        return found
    given = Path(path).expanduser()
    if given.is_dir():
        base = Path(default).name
        candidates = [given / name for name in (base, base.removesuffix(".gz"), "tokenizer.json")]
        inside = [candidate for candidate in candidates if candidate.is_file()]
        if not inside:
            raise TaskError(f"tokenizer={path}: the folder holds none of {', '.join(c.name for c in candidates)}")
        return inside[0]
    if not given.is_file():
        raise TaskError(f"tokenizer={path}: no such file; {what} is needed")
    return given


def _tokenizers_version() -> dict[str, str]:
    return {"tokenizers": package_version("tokenizers")}
