"""BERTScore (Zhang et al. 2020) with any transformers encoder, as a judge or a metric."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mmpost.errors import ConfigError
from mmpost.judges.base import Judge, Pair, Verdict, clean_text

if TYPE_CHECKING:
    from torch import Tensor


class BertScore(Judge):
    """F1 of greedy token matches: P averages, over the candidate's tokens, the highest cosine similarity to any token
    of the reference; R is the reverse; F1 = 2 P R / (P + R). No idf weighting and no baseline rescaling.

    Special tokens are ignored, and a text without other tokens scores 0. The package `bert-score` is not used because
    it has had no release since 2023. Raises ConfigError if the model cannot be loaded.
    """

    model: str
    """Folder or hub id of an encoder, such as microsoft/deberta-xlarge-mnli."""
    layer: int = -1
    """Which hidden states to compare: 0 embeddings, -1 last layer. The paper lists the best layer of each model."""
    device: str = "auto"
    """"auto" (a GPU if there is one), "cpu", "cuda", "cuda:1"."""
    batch: int = Field(default=32, ge=1)
    """Texts per forward pass."""
    clean: bool = True
    """Remove [spans] and **, and lowercase both texts first."""

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        pairs = [Pair(*pair) for pair in pairs]
        texts = [text for pair in pairs for text in (pair.reference, pair.candidate)]
        embeddings = self._token_embeddings(list(dict.fromkeys(texts)))
        return [_verdict(embeddings[pair.reference], embeddings[pair.candidate]) for pair in pairs]

    def _token_embeddings(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Unit vectors [tok, dim] of each text's tokens, special tokens excluded."""
        import torch

        tokenizer, model = _load_encoder(self.model, self.device)
        embeddings: dict[str, Tensor] = {}
        for start in range(0, len(texts), self.batch):
            batch = list(texts[start : start + self.batch])
            inputs = tokenizer(
                [clean_text(text) if self.clean else text for text in batch],
                return_tensors="pt",
                padding=True,
                truncation=True,
                return_special_tokens_mask=True,
            )
            text_tokens = ~inputs.pop("special_tokens_mask").bool() & inputs["attention_mask"].bool()
            with torch.inference_mode():
                out = model(**inputs.to(model.device), output_hidden_states=True).hidden_states[self.layer]
            unit = torch.nn.functional.normalize(out.float(), dim=-1).cpu()
            embeddings |= {text: rows[mask] for text, rows, mask in zip(batch, unit, text_tokens, strict=True)}
        return embeddings


def _verdict(reference: Tensor, candidate: Tensor) -> Verdict:
    if not (len(reference) and len(candidate)):
        return Verdict(0.0, counts={"precision": 0.0, "recall": 0.0})
    cosines = candidate @ reference.T
    precision, recall = float(cosines.amax(1).mean()), float(cosines.amax(0).mean())
    total = precision + recall
    return Verdict(2 * precision * recall / total if total else 0.0, counts={"precision": precision, "recall": recall})


@functools.lru_cache(maxsize=1)
def _load_encoder(name: str, device: str) -> tuple[Any, Any]:
    """Tokenizer and model. The last one stays loaded, because a judge runs on every rollout batch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModel.from_pretrained(name)
    except (OSError, ValueError) as e:
        raise ConfigError(
            f"BERTScore: wanted a transformers encoder, found {name!r}, which cannot be loaded ({e}); name a folder or "
            "hub id of an encoder"
        ) from e
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return tokenizer, model.to(target).eval()
