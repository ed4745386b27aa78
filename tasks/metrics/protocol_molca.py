"""The protocol of MolCA (arXiv 2310.12798), as the code that was released with it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import AnswerKind
from tasks.metrics.base import Metric, Protocol
from tasks.metrics.text import Bleu2, Bleu4, Meteor, Rouge1, Rouge2, RougeL
from tasks.metrics.tokenizers import Tokenizer, scibert


@dataclass(frozen=True, kw_only=True)
class MolCA(Protocol):
    """MolCA's captions and IUPAC names (repository acharkq/MolCA at f728a47, `model/help_funcs.py:9-61`).

    Captions and names alike: corpus BLEU-2 and BLEU-4 (unsmoothed), mean METEOR and mean ROUGE-1/2/L F-measure (not
    stemmed). BLEU and METEOR compare SciBERT's uncased word pieces (`model/blip2.py:25-32`). The script asks for a cut
    at 512 pieces (`model/blip2_stage2.py:149`), but its slow tokenizer ignores the request, so that whole texts are
    compared; that, and a `[CLS] ` that it leaves for ROUGE to count as a word, is all that sets it apart from `molt5`.
    It shows percents; molgraft shows fractions. Other kinds of answer are not scored by the released code.

    It hides: whether a caption or a name is true; that a systematic name is judged by its fragments, so that a wrong
    name with the right pieces comes off well; and, as the script knows no unread answer, how many there were: such an
    answer counts as an empty caption here. The released code scores the test split every tenth epoch while it trains
    (`model/blip2_stage2.py:207`) and names no rule by which one of these scores is the one that is published.

    Args:
        tokenizer: SciBERT's `vocab.txt`, or the folder that holds it, where it is not in the data folders.
    """

    name: ClassVar[str] = "molca"

    tokenizer: str | None = None

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions, which names are too."""
        return {"caption": (Bleu2(), Bleu4(), Rouge1(), Rouge2(), RougeL(), Meteor())}

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """SciBERT's word pieces, all of them."""
        return scibert(self.tokenizer, limit=None)
