"""The losses of the preference trainers of trl without a model: log-probabilities come from tables.

A row is one prompt token, its row index in the tables, and a reply. The fake model
returns log-probs [row, width] from a table, zero beyond the reply, and for the older trainers logits over two
tokens of which the first has this log-prob. With a prompt of one token, ORPO's likelihood over prompt and reply is
that of the reply.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.objectives.oracle import Accelerator


@dataclass
class Tables:
    """Log-probs [pair, 2, width] of chosen and rejected replies, zero beyond the end of each."""

    logp: Tensor
    """A leaf tensor."""
    ref: Tensor
    sum_p2: Tensor
    lengths: list[list[int]]
    """Indexed by pair, then (chosen, rejected)."""

    @property
    def present(self) -> Tensor:
        return torch.arange(self.logp.shape[-1]) < torch.tensor(self.lengths)[..., None]


def tables(lengths: Sequence[Sequence[int]], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tables:
    """Random tables for pairs of ragged replies."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), 2, max(n for pair in lengths for n in pair))
    result = Tables(torch.zeros(0), torch.zeros(0), torch.zeros(0), [list(pair) for pair in lengths])
    result.logp = -1.2 + 0.4 * torch.rand(shape, generator=generator, dtype=torch.float64)
    result.ref = (result.logp + 0.6 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.3).to(dtype)
    result.sum_p2 = 0.2 + 0.5 * torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    result.logp = result.logp.to(dtype).requires_grad_()
    return result


class TableModel:
    """Looks up log-probs by the first token of each row."""

    training = True
    is_gradient_checkpointing = False
    _modules: dict[str, Any] = {}

    def __init__(self, rows: Tensor, sum_p2: Tensor | None = None) -> None:
        self.rows, self.sum_p2 = rows, sum_p2

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        index, zeros = input_ids[:, 0], torch.zeros(input_ids.shape[0], input_ids.shape[1] - 1)
        logp = self.rows[index]
        squares = torch.ones_like(logp) if self.sum_p2 is None else self.sum_p2[index]
        # Two tokens per position, of which 0 is the actual one; the last position is never read.
        finite = logp.masked_fill(logp == 0, -1.0)
        two = torch.stack([finite, torch.log1p(-finite.exp())], dim=-1)
        return SimpleNamespace(
            log_probs=logp,
            log_sum_sq_probs=squares.log(),
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros > 0,
            logits=torch.cat([two, two[:, -1:]], dim=1),
        )


def _zeroed(pair_tables: Tables, values: Tensor) -> Tensor:
    return values.masked_fill(~pair_tables.present, 0.0)


def _trainer_without_init(cls: Any, attributes: dict[str, Any]) -> Any:
    instance = cls.__new__(cls)
    common = {"accelerator": Accelerator(), "aux_loss_enabled": False, "_total_train_tokens": 0, "_tp_size": 1}
    args = SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=0.05)
    metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    for name, value in {**common, "args": args, "_metrics": metrics, **attributes}.items():
        setattr(instance, name, value)
    return instance


def dpo(cls: Any, pair_tables: Tables, weights: dict[str, float], **settings: Any) -> Tensor:
    """The loss of DPOTrainer with loss types `weights`; the rows are all chosen replies, then all rejected ones."""

    def rows(values: Tensor) -> Tensor:
        return _zeroed(pair_tables, values).transpose(0, 1).flatten(0, 1)

    policy = TableModel(rows(pair_tables.logp), pair_tables.sum_p2.transpose(0, 1).flatten(0, 1))
    attributes = {
        **{"model": policy, "ref_model": TableModel(rows(pair_tables.ref)), "precompute_ref_logps": False},
        **{"loss_types": list(weights), "loss_weights": list(weights.values())},
        **{"beta": 0.1, "label_smoothing": 0.0, "ld_alpha": None, "use_weighting": False},
        **{"f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5},
        **settings,
    }
    trainer = _trainer_without_init(cls, attributes)
    present = rows(torch.ones_like(pair_tables.ref)) > 0
    n, width = present.shape
    ids = torch.zeros(n, width + 1, dtype=torch.long)
    ids[:, 0] = torch.arange(n)
    mask = torch.cat([torch.zeros(n, 1, dtype=torch.long), present.long()], dim=1)
    return trainer._compute_loss(
        policy, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}, False
    )


def kto(
    cls: Any, pair_tables: Tables, mismatched: Tables, labels: Sequence[bool], loss: str, **settings: Any
) -> Tensor:
    """The loss of KTOTrainer; rows are the first replies of `pair_tables`, rotated ones the first of `mismatched`."""
    n, width = pair_tables.logp.shape[0], pair_tables.logp.shape[-1]
    stacked = [torch.cat([_zeroed(t, v)[:, 0] for t, v in zip((pair_tables, mismatched), values, strict=True)])
            for values in ((pair_tables.logp, mismatched.logp), (pair_tables.ref, mismatched.ref))]  # fmt: skip
    policy, reference = TableModel(stacked[0]), TableModel(stacked[1])
    present = torch.cat([pair_tables.present[:, 0], mismatched.present[:, 0]])
    mask = torch.cat([torch.zeros(2 * n, 1, dtype=torch.long), present.long()], dim=1)
    ids = torch.zeros(2 * n, width + 1, dtype=torch.long)
    ids[:, 0] = torch.arange(2 * n)
    attributes = {
        **{"model": policy, "ref_model": reference, "precompute_ref_logps": False, "loss_type": loss},
        **{"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0, "calculate_KL": loss == "kto"},
        **settings,
    }
    trainer = _trainer_without_init(cls, attributes)
    inputs = {"input_ids": ids[:n], "attention_mask": torch.ones_like(ids[:n]), "completion_mask": mask[:n]}
    more = {"KL_input_ids": ids[n:], "KL_attention_mask": torch.ones_like(ids[n:]), "KL_completion_mask": mask[n:]}
    return trainer._compute_loss(policy, {**inputs, **more, "label": torch.tensor(list(labels))}, False)


def cpo_or_orpo(cls: Any, pair_tables: Tables, **settings: Any) -> Tensor:
    """The full loss of CPOTrainer or ORPOTrainer: likelihood and preference."""
    policy = TableModel(_zeroed(pair_tables, pair_tables.logp).transpose(0, 1).flatten(0, 1))
    attributes = {
        **{"is_encoder_decoder": False, "pad_token_id": 0, "padding_value": 0, "beta": 0.1, "label_smoothing": 0.0},
        **{"alpha": 0.0, "simpo_gamma": 0.5, "cpo_alpha": 1.0, "loss_type": "sigmoid"},
        **settings,
    }
    trainer = _trainer_without_init(cls, attributes)
    n = len(pair_tables.lengths)
    batch = {}
    for side, name in enumerate(("chosen", "rejected")):
        present = torch.cat([torch.ones(n, 1, dtype=torch.bool), pair_tables.present[:, side]], dim=1)
        ids = torch.zeros(present.shape, dtype=torch.long)
        ids[:, 0] = side * n + torch.arange(n)
        labels = torch.where(present, 0, -100)
        labels[:, 0] = -100
        batch |= {f"{name}_input_ids": ids, f"{name}_attention_mask": present.long(), f"{name}_labels": labels}
    return trainer.get_batch_loss_metrics(policy, batch)[0]
