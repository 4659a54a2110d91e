"""Run by torchrun: this rank's share of the steps of tests/models/embedding/test_model.py; rank 0 writes them."""

import sys
from pathlib import Path

import torch

from mmpost.core import distributed

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.models.embedding.test_model import OBJECTIVES, load, step

    folder, out = sys.argv[1:]
    distributed.start("cpu")
    found = {}
    for name, objective in OBJECTIVES.items():
        flat, numbers = step(load(folder, 4), objective)
        found[name] = {"gradient": flat, "numbers": numbers}
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.stop()
