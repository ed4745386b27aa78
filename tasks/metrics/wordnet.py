"""Stems and synonyms of words for METEOR: nltk's Porter stemmer, and WordNet read from its own files.

nltk's reader of WordNet opens only files below nltk's global search path, and takes seconds to import and to load. What
METEOR needs of it is little: the lemmas of the synsets of a word's base forms, as nltk (3.10) finds them.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base import TaskError
from tasks.locations import find, where_looked

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer

_ARCHIVE = "nltk_data/corpora/wordnet.zip"

# The endings that WordNet's morphology detaches, by part of speech (the manual page morphy(7WN)), with what replaces
# them; `men` is nltk's reading of it.
_ENDINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "verb": (*(("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
_MARKER = re.compile(rb"\([^()]*\)$")  # an adjective's syntactic marker, such as `galore(ip)`


class WordNet:
    """The synonyms that WordNet knows.

    Args:
        place: its folder, or an archive that holds it under `wordnet/`.

    Raises:
        KeyError, OSError, zipfile.BadZipFile: a file is missing or damaged.
    """

    def __init__(self, place: Path) -> None:
        files = _read(place, [f"{prefix}.{pos}" for prefix in ("index", "data") for pos in _ENDINGS])
        exceptions = _read(place, [f"{pos}.exc" for pos in _ENDINGS])
        self._data = {pos: files[f"data.{pos}"] for pos in _ENDINGS}
        self._index = {pos: _by_first_word(files[f"index.{pos}"]) for pos in _ENDINGS}
        self._exceptions = {pos: _by_first_word(exceptions[f"{pos}.exc"]) for pos in _ENDINGS}

    def synonyms(self, word: str) -> frozenset[str]:
        """`word` and the single-word lemmas of all synsets of its base forms."""
        found = {word}
        for pos in _ENDINGS:
            for form in self._base_forms(word.lower(), pos):
                for offset in self._offsets(form, pos):
                    found.update(lemma for lemma in self._lemmas(offset, pos) if "_" not in lemma)
        return frozenset(found)

    def _base_forms(self, word: str, pos: str) -> list[bytes]:
        """The forms under which `word` stands in the index: itself, and its exceptions or what its endings leave."""
        exception = self._exceptions[pos].get(word.encode())
        if exception is not None:
            forms = exception.split()
        else:
            forms = [(word[: -len(old)] + new).encode() for old, new in _ENDINGS[pos] if word.endswith(old)]
        return [form for form in (word.encode(), *forms) if form in self._index[pos]]

    def _offsets(self, form: bytes, pos: str) -> Iterator[int]:
        """Where the synsets of `form` begin: `pos n_synsets n_pointers pointers.. n_senses n_tagged offsets..`."""
        fields = self._index[pos][form].split()
        yield from map(int, fields[len(fields) - int(fields[1]) :])

    def _lemmas(self, offset: int, pos: str) -> Iterator[str]:
        """The lemmas of the synset at `offset`: `offset file type n_lemmas(hex) lemma id lemma id ..`."""
        data = self._data[pos]
        fields = data[offset : data.index(b"\n", offset)].split()
        for lemma in fields[4 : 4 + 2 * int(fields[3], 16) : 2]:
            yield _MARKER.sub(b"", lemma).decode()


class Lexicon:
    """Stems and synonyms of words, each looked up once.

    Args:
        stemmer: nltk's Porter stemmer.
        wordnet: where synonyms come from.
    """

    def __init__(self, stemmer: PorterStemmer, wordnet: WordNet) -> None:
        self._stemmer = stemmer
        self._wordnet = wordnet
        self._stems: dict[str, str] = {}
        self._synonyms: dict[str, frozenset[str]] = {}

    def forget(self) -> None:
        """Drops what was looked up; for benchmarks."""
        self._stems.clear()
        self._synonyms.clear()

    def stem(self, word: str) -> str:
        """The Porter stem of `word`."""
        stem = self._stems.get(word)
        if stem is None:
            stem = self._stems[word] = str(self._stemmer.stem(word))
        return stem

    def synonyms(self, word: str) -> frozenset[str]:
        """`word` and its synonyms in WordNet."""
        synonyms = self._synonyms.get(word)
        if synonyms is None:
            synonyms = self._synonyms[word] = self._wordnet.synonyms(word)
        return synonyms


def locate() -> Path | None:
    """WordNet's archive or folder under the data folders, else on nltk's own search path; None where there is none."""
    found = find(_ARCHIVE) or find(_ARCHIVE.removesuffix(".zip"))
    if found is not None:
        return found
    import nltk.data

    places = [Path(root) / "corpora" / name for root in nltk.data.path for name in ("wordnet.zip", "wordnet")]
    return next((place for place in places if place.exists()), None)


def missing_reason() -> str:
    """Why METEOR has no value, and what would give it one."""
    return (
        f"METEOR needs WordNet 3.0, which was not found: {where_looked(_ARCHIVE)}, then at nltk's own search path. "
        "Get it with `python -m nltk.downloader wordnet`, or put the archive at the first of these places"
    )


def wordnet_sha256(place: Path) -> str:
    """The hash of the archive, or of the files of the folder in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def load_lexicon(place: Path) -> Lexicon:
    """The lexicon over the WordNet at `place`, read once in a process as long as the file stays the same.

    Raises:
        TaskError: the archive or folder is damaged or lacks a file.
    """
    state = place.stat()
    return _load_lexicon(place, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)
def _load_lexicon(place: Path, modified_ns: int, size: int) -> Lexicon:
    from nltk.stem.porter import PorterStemmer

    try:
        wordnet = WordNet(place)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise TaskError(
            f"{place}: not a usable WordNet ({error}); METEOR needs WordNet 3.0 as nltk ships it"
        ) from error
    return Lexicon(PorterStemmer(), wordnet)


def _read(place: Path, names: list[str]) -> dict[str, bytes]:
    """Files of WordNet by name."""
    if place.is_dir():
        return {name: (place / name).read_bytes() for name in names}
    with zipfile.ZipFile(place) as archive:
        return {name: archive.read(f"wordnet/{name}") for name in names}


def _by_first_word(contents: bytes) -> dict[bytes, bytes]:
    """The rest of each line by its first word; the licence at the head is indented."""
    lines = (line.partition(b" ") for line in contents.splitlines() if not line.startswith(b" "))
    return {word: rest for word, _, rest in lines}
