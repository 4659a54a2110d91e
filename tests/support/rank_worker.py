"""Run by torchrun: this rank's share of the gradients of tests/training/test_trainer.py; rank 0 writes them."""

import sys
from pathlib import Path

import torch
from gradients import gradient

from mmpost.core import distributed

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.training.test_trainer import OBJECTIVES

    folder, out = sys.argv[1:]
    distributed.start("cpu")
    found = {}
    for name, objective in OBJECTIVES.items():
        flat, loss = gradient(folder, objective)
        found[name] = {"gradient": flat, "loss": loss}
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.stop()
