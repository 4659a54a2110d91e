"""Run by torchrun: gradients of tests/training/test_active_replies.py on two ranks, one of them idle."""

import sys
from pathlib import Path

import torch

from mmpost.core import distributed

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.training.test_active_replies import FORMS, flat_groups, gradient, load

    folder, out = sys.argv[1:]
    distributed.start("cpu")
    model = load(folder)
    samples = flat_groups(model, flat=(1, 3))
    found = {name: gradient(model, name, samples, share=True)[0] for name in FORMS}
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.stop()
