"""The tokenizers on which caption metrics are computed; the same captions score differently on each of them."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version as package_version
from itertools import chain
from pathlib import Path

from tasks.base import TaskError
from tasks.locations import find, where_looked

SCIBERT_VOCABULARY = "scibert_scivocab_uncased/vocab.txt"
SCIBERT_ENTRIES = 31_090
T5_TOKENIZER = "oracle_predictions/t5_tokenizer.json.gz"
T5_ENTRIES = 32_100
LLAMA2_TOKENIZER = "llama2_tokenizer/tokenizer.model"
LLAMA2_ENTRIES = 32_000

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


def scibert(path: str | None = None, *, limit: int | None = 512) -> Tokenizer:
    """SciBERT's uncased word pieces as MolT5's evaluation script makes them.

    At most 512 pieces per text; no special token is added, and `[PAD]`, `[CLS]`, `[SEP]` that stand in a text are
    removed after the cut.

    Args:
        path: `vocab.txt`, or the folder that holds it; by default the data folders are searched.
        limit: how many pieces of a text are kept; None for all of them.

    Raises:
        TaskError: there is no such file, or it is not SciBERT's vocabulary.
    """
    file = _located(path, SCIBERT_VOCABULARY, "SciBERT's vocabulary (allenai/scibert_scivocab_uncased, vocab.txt)")
    state = file.stat()
    return _scibert(file, limit, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)  # the same object for the same file: what was tokenized with it can be found again
def _scibert(file: Path, limit: int | None, modified_ns: int, size: int) -> Tokenizer:
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
        # No piece goes across a space, and captions repeat their words: each word is cut once.
        spaced = [text.split(" ") for text in _encodable(texts)]
        words = list({word: None for text in spaced for word in text})
        encodings = pieces.encode_batch(words, add_special_tokens=False)
        cut = {word: encoding.tokens for word, encoding in zip(words, encodings, strict=True)}
        found = [list(chain.from_iterable(map(cut.__getitem__, text)))[:limit] for text in spaced]
        return [[token for token in text if token not in special] for text in found]

    name = "scibert" if limit == 512 else f"scibert, {'all' if limit is None else limit} pieces"
    return Tokenizer(name, hashlib.sha256(contents).hexdigest(), split, _tokenizers_version())


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
        return [encoding.tokens for encoding in pieces.encode_batch(_encodable(texts), add_special_tokens=False)]

    return Tokenizer("t5", hashlib.sha256(contents).hexdigest(), split, _tokenizers_version())


def llama2(path: str | None = None, *, strip: bool = False) -> Tokenizer:
    """Llama-2's pieces as its slow tokenizer in `transformers` makes them, which the scripts of LLaMo and MolX call.

    No special token is added and nothing is cut (that tokenizer ignores a limit); `<s>`, `</s>` and `<unk>` that stand
    in a text are one piece each. A space is put before a text, and each space belongs to the word behind it.

    The model file is read here, without the package sentencepiece: its pieces and their scores make the same merges.

    Args:
        path: `tokenizer.model`, or the folder that holds it; by default the data folders are searched.
        strip: whether white space around a text is removed first.

    Raises:
        TaskError: there is no such file, or it is not Llama-2's tokenizer.
    """
    file = _located(path, LLAMA2_TOKENIZER, "Llama-2's tokenizer (meta-llama/Llama-2-7b-chat-hf, tokenizer.model)")
    state = file.stat()
    return _llama2(file, strip, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _llama2(file: Path, strip: bool, modified_ns: int, size: int) -> Tokenizer:
    from tokenizers import AddedToken, Regex, models, pre_tokenizers
    from tokenizers import Tokenizer as Pieces

    contents = file.read_bytes()
    try:
        scores = dict(_sentencepieces(contents))
    except (IndexError, KeyError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise TaskError(f"{file}: not a SentencePiece model ({error})") from error
    if len(scores) != LLAMA2_ENTRIES:
        raise TaskError(f"{file}: {len(scores):,} entries, but Llama-2's tokenizer has {LLAMA2_ENTRIES:,}")

    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=lambda piece: -scores[piece])  # the best score is merged first
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    vocabulary = {piece: place for place, piece in enumerate(scores)}
    pieces = Pieces(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # No piece holds a space behind another sign, so words can be merged alone, of which the library keeps the frequent.
    pieces.pre_tokenizer = pre_tokenizers.Split(Regex("▁+[^▁]*|[^▁]+"), "isolated")
    special = ("<unk>", "<s>", "</s>")
    pieces.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in special])

    def split(texts: Sequence[str]) -> list[list[str]]:
        held = [text.strip() if strip else text for text in _encodable(texts)]
        spaced = [f"▁{text}".replace(" ", "▁") if text else "" for text in held]
        tokens = [encoding.tokens for encoding in pieces.encode_batch(spaced, add_special_tokens=False)]
        return [found[1:] if found[:1] == ["▁"] and found[1:2] and found[1] in special else found for found in tokens]

    return Tokenizer("llama-2", hashlib.sha256(contents).hexdigest(), split, _tokenizers_version())


def _sentencepieces(model: bytes) -> Iterator[tuple[str, float]]:
    """The pieces and scores of a SentencePiece model, in order: field 1 of the message, its fields 1 and 2."""
    for number, piece in _fields(memoryview(model)):
        if number == 1:
            values = dict(_fields(piece))
            yield bytes(values[1]).decode("utf-8"), struct.unpack("<f", values.get(2, bytes(4)))[0]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and contents of each field of a protocol-buffer message.

    Raises:
        ValueError: it is not one.
        IndexError: it ends within a field.
    """

    def varint(place: int) -> tuple[int, int]:
        value, shift = 0, 0
        while True:
            byte = message[place]
            value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
            if byte < 0x80:
                return value, place

    place = 0
    while place < len(message):
        key, start = varint(place)
        number, wire_type = key >> 3, key & 7
        if wire_type == 2:
            length, start = varint(start)
            place = start + length
        elif wire_type in (1, 5):
            place = start + (8 if wire_type == 1 else 4)
        elif wire_type == 0:
            place = varint(start)[1]
        else:
            raise ValueError(f"wire type {wire_type} at byte {start}")
        if place > len(message):
            raise IndexError(f"field {number} ends behind the file")
        yield number, message[start:place]


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


def _encodable(texts: Sequence[str]) -> list[str]:
    """The texts with a `?` in place of each half of a surrogate pair, which the library refuses."""
    return [text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8") for text in texts]


def _tokenizers_version() -> dict[str, str]:
    return {"tokenizers": package_version("tokenizers")}
