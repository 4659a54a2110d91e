"""Run by torchrun: this rank's share of the steps of tests/models/test_embedder.py; rank 0 writes them."""

import sys
from pathlib import Path

import torch

from mmpost import dist

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    from tests.models.test_embedder import OBJECTIVES, load, step

    folder, out = sys.argv[1:]
    dist.start("cpu")
    found = {}
    for name, objective in OBJECTIVES.items():
        flat, numbers = step(load(folder, 4), objective)
        found[name] = {"gradient": flat, "numbers": numbers}
    if dist.rank() == 0:
        torch.save(found, out)
    dist.stop()
