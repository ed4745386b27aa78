"""The protocol that reads names as structures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import AnswerKind
from tasks.metrics.base import Metric, Protocol
from tasks.metrics.opsin import NameExact, NameLevenshtein, OpsinExact, OpsinMorgan, OpsinParsed


@dataclass(frozen=True, kw_only=True)
class Opsin(Protocol):
    """Names as the molecules that they name: two right names of one molecule differ as strings, not as structures.

    For answers that are systematic names. OPSIN turns each into a structure: `opsin-parsed` is the share that it reads,
    `opsin-exact` the share that is the molecule (canonical SMILES or InChI), `opsin-morgan` the mean similarity; an
    answer that is not read is wrong and has similarity 0. The molecule is the one that was asked about, else what OPSIN
    makes of the gold name. `name-exact` and `name-levenshtein` compare the strings. Without OPSIN or Java the first
    three have no value and say what to install.

    Measured with OPSIN 2.9.0 and RDKit 2026.09.1 on gold names, which is the ceiling of a perfect model:

    | names | n | parsed | exact |
    |---|---|---|---|
    | PubChem324k IUPAC test | 1,986 | 1,894 (95.4 %) | 1,817 (91.5 %) |
    | ChEBI-20-MM test | 3,292 | 3,199 (97.2 %) | 3,139 (95.4 %) |
    | ChEBI-20-MM validation | 3,291 | 3,208 (97.5 %) | 3,157 (95.9 %) |
    | IUPAC2Struct, drawn at random | 2,000 | 1,938 (96.9 %) | 1,926 (96.3 %) |
    | ChemLLMBench | 600 | 595 (99.2 %) | 412 of 599 (68.8 %) |

    Of the 92 names of PubChem324k that are not read, 72 are salts and mixtures with components like "disodium" or
    "trihydrate"; of the 77 read wrongly, 36 hold metals ("sodium" is read as the element) and 28 differ in stereo only.
    Of ChemLLMBench's 187, 169 differ in stereo only. OPSIN itself reads none of the 174 PubChem324k names with `;`,
    which are taken apart for it; without that 1,792 are parsed and 1,756 exact.

    It hides: that a model may lose on those names by being right; that a name that OPSIN forgives ("acetylsalicylic
    acid") counts as much as the systematic one; and what an answer holds beside the name, for all of it is the name.
    OPSIN is stopped at a name from which it does not come back within 10 s; how many is said with the values.
    """

    name: ClassVar[str] = "opsin"

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions only: a name is a caption by kind."""
        return {"caption": (OpsinParsed(), OpsinExact(), OpsinMorgan(), NameExact(), NameLevenshtein())}
