"""Run by torchrun: this rank's share of the steps of tests/test_whole.py; rank 0 writes them."""

import sys

import torch
from whole_steps import Coupled, load, step

from mmpost import dist

if __name__ == "__main__":
    folder, out = sys.argv[1:]
    dist.start("cpu")
    found = {}
    for micro in (0, 2):
        flat, numbers, _ = step(load(folder, micro), Coupled())
        found[str(micro)] = {"gradient": flat, "numbers": numbers}
    if dist.rank() == 0:
        torch.save(found, out)
    dist.stop()
