"""Run by torchrun: this rank's share of the steps of tests/training/test_gradient_cache.py; rank 0 writes them."""

import sys

import torch
from whole_steps import Coupled, load, step

from mmpost.core import distributed

if __name__ == "__main__":
    folder, out = sys.argv[1:]
    distributed.start("cpu")
    found = {}
    for micro in (0, 2):
        flat, numbers, _ = step(load(folder, micro), Coupled())
        found[str(micro)] = {"gradient": flat, "numbers": numbers}
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.stop()
