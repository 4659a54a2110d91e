"""BERTScore (Zhang et al. 2020) with any encoder of transformers, as a judge or a measure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mmpost.errors import ConfigError
from mmpost.judges.base import Judge, Pair, Verdict, cleaned

if TYPE_CHECKING:
    from torch import Tensor


class BertScore(Judge):
    """F1 of greedy matches between the tokens' embeddings: P is the mean over the candidate's tokens of the largest
    cosine to a token of the reference, R the other way round, F = 2 P R / (P + R). No idf weights, no rescaling.

    Tokens that the tokenizer adds are left out; a text without other tokens scores 0. Raises ConfigError where the
    model cannot be loaded. The package `bert-score` is not used: it has no release since 2023.
    """

    model: str
    """A folder or hub id of an encoder, such as microsoft/deberta-xlarge-mnli."""
    layer: int = -1
    """Which hidden states: 0 the embeddings, -1 the last layer; the paper's table says which is best for a model."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1"."""
    batch: int = Field(default=32, ge=1)
    """Texts at a time."""
    clean: bool = True
    """Take [spans], ** and capitals out of both texts first."""

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        whole = [Pair(*pair) for pair in pairs]
        texts = [text for pair in whole for text in (pair.reference, pair.candidate)]
        vectors = self._vectors(list(dict.fromkeys(texts)))
        return [_verdict(vectors[pair.reference], vectors[pair.candidate]) for pair in whole]

    def _vectors(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Unit vectors [tok, dim] of each text's own tokens."""
        import torch

        tokenizer, model = _loaded(self.model, self.device)
        found: dict[str, Tensor] = {}
        for start in range(0, len(texts), self.batch):
            some = list(texts[start : start + self.batch])
            inputs = tokenizer(
                [cleaned(text) if self.clean else text for text in some],
                return_tensors="pt",
                padding=True,
                truncation=True,
                return_special_tokens_mask=True,
            )
            own = ~inputs.pop("special_tokens_mask").bool() & inputs["attention_mask"].bool()
            with torch.inference_mode():
                out = model(**inputs.to(model.device), output_hidden_states=True).hidden_states[self.layer]
            unit = torch.nn.functional.normalize(out.float(), dim=-1).cpu()
            found |= {text: rows[kept] for text, rows, kept in zip(some, unit, own, strict=True)}
        return found


def _verdict(reference: Tensor, candidate: Tensor) -> Verdict:
    if not (len(reference) and len(candidate)):
        return Verdict(0.0, counts={"precision": 0.0, "recall": 0.0})
    cosines = candidate @ reference.T
    precision, recall = float(cosines.amax(1).mean()), float(cosines.amax(0).mean())
    total = precision + recall
    return Verdict(2 * precision * recall / total if total else 0.0, counts={"precision": precision, "recall": recall})


@functools.lru_cache(maxsize=1)
def _loaded(name: str, device: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModel.from_pretrained(name)
    except (OSError, ValueError) as e:
        raise ConfigError(
            f"BERTScore: wanted an encoder of transformers, found {name!r}, which cannot be loaded ({e}); name "
            "a folder with one"
        ) from e
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return tokenizer, model.to(where).eval()
