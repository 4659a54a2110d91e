"""Run by torchrun: gradients of tests/test_needed.py on two ranks, of which the second has idle replies only."""

import sys

import torch
from test_needed import FORMS, flat_groups, gradient, load

from mmpost import dist

if __name__ == "__main__":
    folder, out = sys.argv[1:]
    dist.start("cpu")
    model = load(folder)
    samples = flat_groups(model, flat=(1, 3))
    found = {name: gradient(model, name, samples, share=True)[0] for name in FORMS}
    if dist.rank() == 0:
        torch.save(found, out)
    dist.stop()
