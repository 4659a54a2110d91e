"""Run by torchrun: this rank's share of the gradients of tests/tasks/test_preference.py; rank 0 writes them."""

import sys

import torch
from gradients import gradient
from preference_steps import OBJECTIVES, judged

from mmpost.core import distributed

if __name__ == "__main__":
    folder, out = sys.argv[1:]
    distributed.start("cpu")
    found = {}
    for name, objective in OBJECTIVES.items():
        flat, loss = gradient(folder, objective, judged())
        found[name] = {"gradient": flat, "loss": loss}
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.stop()
