"""Preference losses of each unit, and labeled replies for them."""

from __future__ import annotations

from dataclasses import replace

import torch

from mmpost.data.worlds.digits.scenes import Scenes
from mmpost.objectives.preference import Preference
from mmpost.types import Objective, Reply, Sample

OBJECTIVES: dict[str, Objective] = {
    "pairs": Preference(loss_type="mpo", ld_alpha=0.5, weighting=True),
    "free": Preference(loss_type="orpo"),
    "sorted": Preference(loss_type="aot"),
    "unpaired": Preference(loss_type="kto", undesirable=0.5),
}


def judged(n: int = 6, seed: int = 0) -> list[Sample]:
    """Scenes with a chosen, a rejected and a mismatched reply of 1 to 9 random tokens."""
    rng = torch.Generator().manual_seed(seed)
    samples = []
    for scene in Scenes(n=n, seed=5):
        replies = []
        for chosen, mismatched in ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0)):
            length = int(torch.randint(1, 10, (), generator=rng))
            ids = tuple(torch.randint(10, 500, (length,), generator=rng).tolist())
            ref = (-6.8 + 0.4 * torch.rand(length, generator=rng)).tolist()
            columns = {"chosen": chosen, "mismatched": mismatched, "ref_logp": ref}
            replies.append(Reply((), "data", ids, columns=columns))
        samples.append(replace(scene, replies=tuple(replies)))
    return samples
