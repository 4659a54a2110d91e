"""The losses of the trainers of trl without a model: log-probabilities and rewards come from tables.

The prompt of each row is a single token, its row index, by which the fake forward pass looks up its table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

EOS, PAD, TEXT = 2, 0, 5


class Accelerator:
    device = torch.device("cpu")
    num_processes = 1
    process_index = 0
    sync_gradients = True

    def gather(self, x: Any) -> Any:
        return x

    def gather_for_metrics(self, x: Any) -> Any:
        return x

    def reduce(self, x: Tensor, reduction: str) -> Tensor:
        return x


class Policy:
    """The attributes of a model that the trainers read."""

    training = True
    is_gradient_checkpointing = False


ARGS = {
    "use_bias_correction_kl": True,
    "delta": None,
    "sapo_temperature_pos": 1.0,
    "sapo_temperature_neg": 1.05,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
    "steps_per_generation": 1,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing_kwargs": None,
    "per_device_train_batch_size": 8,
}


def trainer(cls: Any, rollout: dict[str, Any], group: int, accumulate: int, **settings: Any) -> Any:
    """A trainer of class `cls` on a rollout (see `rollout`); `settings` become attributes of it or its arguments."""
    args = SimpleNamespace(**{name: settings.pop(name, value) for name, value in ARGS.items()})
    args.gradient_accumulation_steps = accumulate
    instance = cls.__new__(cls)
    current, old, reference = Policy(), Policy(), Policy()
    tables = {id(current): rollout["logp"], id(old): rollout["old"], id(reference): rollout["ref"]}

    def forward(model: Policy, input_ids: Tensor, attention: Tensor, keep: int, *_: Any, **__: Any) -> Any:
        rows = input_ids[:, 0]
        return tables[id(model)][rows][:, :keep], rollout["entropy"][rows][:, :keep], None

    def generate(prompts: Sequence[str]) -> Any:
        n = [int(m.sum()) for m in rollout["mask"]]
        ids = [[TEXT] * (k - 1) + [TEXT if cut else EOS] for k, cut in zip(n, rollout["truncated"], strict=True)]
        sampled = [row[:k].tolist() for row, k in zip(rollout["behaviour"], n, strict=True)]
        prompt_ids, texts = [[i] for i in range(len(n))], [""] * len(n)
        return (prompt_ids, ids, texts) if "RLOO" in cls.__name__ else (
            prompt_ids, ids, None, texts, sampled, {}, None, None,
        )  # fmt: skip

    defaults = {
        "accelerator": Accelerator(), "model": old, "ref_model": reference, "args": args, "beta": 0.0,
        "environment_factories": None, "environments": None, "tools": None, "_is_vlm": False,
        "_tokenizer": SimpleNamespace(pad_token_id=PAD), "eos_token_ids": [EOS], "pad_to_multiple_of": None,
        "mask_truncated_completions": False, "use_vllm": False, "vllm_importance_sampling_correction": False,
        "vllm_importance_sampling_mode": "sequence_mask", "vllm_importance_sampling_clip_min": None,
        "vllm_importance_sampling_clip_max": 3.0, "num_iterations": 1, "num_generations": group,
        "reward_funcs": [None] * rollout["rewards"].shape[1], "reward_func_names": ["r"] * rollout["rewards"].shape[1],
        "reward_weights": torch.ones(rollout["rewards"].shape[1], dtype=torch.float64), "scale_rewards": "group",
        "multi_objective_aggregation": "sum_then_normalize", "aux_loss_enabled": False, "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None, "importance_sampling_level": "token", "loss_type": "grpo",
        "epsilon_low": 0.2, "epsilon_high": 0.2, "current_gradient_accumulation_steps": accumulate,
        "max_completion_length": 10, "_entropy_bonus_enabled": "entropy_coef" in settings,
        "use_adaptive_entropy": False,
        "log_multimodal": False, "reward_clip_range": None, "normalize_advantages": False,
        "_metrics": {"train": defaultdict(list)}, "_pending_extra_logs": {}, "_pending_metrics": {},
        "_logs": {"prompt": [], "completion": [], "rewards": defaultdict(list), "advantages": [], "extra": {}},
        "_get_per_token_logps_and_entropies": forward, "_generate": generate,
        "_calculate_rewards": lambda *_: rollout["rewards"].clone(),
    }  # fmt: skip
    for name, value in {**defaults, **settings}.items():
        setattr(instance, name, value)
    instance.current = current
    return instance


def rollout(lengths: Sequence[int], rewards: Tensor, seed: int = 0, functions: int = 1) -> dict[str, Any]:
    """Random tables [reply, width] of log-probabilities for ragged replies; "logp" and "entropy" are leaves."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))

    def draw(scale: float = 0.3) -> Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    logp = -1 + draw()
    return {
        "logp": logp.clone().requires_grad_(),
        "old": logp + draw(),
        "ref": logp + draw(),
        "behaviour": logp + draw(),
        "entropy": (1 + draw()).requires_grad_(),
        "mask": torch.arange(shape[1]) < torch.tensor(lengths)[:, None],
        "truncated": (torch.rand(shape[0], generator=generator) < 0.3).tolist(),
        "rewards": rewards.reshape(len(lengths), -1),
    }


def losses(instance: Any, rows: int, micro: int) -> tuple[Tensor, Tensor]:
    """(sum of the losses over micro-batches of `micro` rows, advantages of the rollout)."""
    inputs = instance._generate_and_score_completions([{"prompt": ""}] * rows)
    per_row = {name for name, x in inputs.items() if isinstance(x, Tensor) and x.dim() and x.shape[0] == rows}
    parts = []
    for start in range(0, rows, micro):
        cut = {name: x[start : start + micro] if name in per_row else x for name, x in inputs.items()}
        parts.append(instance._compute_loss(instance.current, cut))
    return torch.stack(parts).sum(), inputs["advantages"]
