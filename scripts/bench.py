#!/usr/bin/env python
"""Benchmark of GRPO steps: time, counts and memory of mmpost's plain and shared paths and of TRL's GRPOTrainer.

    python scripts/bench.py                                   # all shapes; a few minutes
    python scripts/bench.py --shapes 1056x8x64 --steps 9 --out bench.json
    python scripts/bench.py --sweep --out sweep.json --picture docs/bench-sweep.png
    python scripts/bench.py --head                            # memory of the output layer with a large vocabulary
    python scripts/bench.py --device cuda --dtype bf16 --model-width qwen2.5-vl-3b --shapes 1056x8x256

docs/performance.md explains the numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from bench_parts import head, peer, profile, show, sweep
from bench_parts.run import ARMS, Plan, measure
from bench_parts.work import SHAPES, Shape, parse, write_model
from rich.console import Console

from mmpost.models.loading import quiet


def main() -> None:
    args = arguments()
    if args.head:
        output_layer(args)
        return
    arms = list(args.arms or ARMS)
    missing = peer.missing() if "trl" in arms and not args.profile else None
    if missing:
        sys.exit(missing)
    shapes: Sequence[Shape] = sweep.SHAPES if args.sweep else args.shapes
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as folder, quiet():
        write_model(Path(folder), args.model_width)
        plan = Plan(
            Path(folder),
            tuple(arms),
            args.steps,
            args.warmup,
            args.device,
            args.dtype,
            args.threads,
            memory=not args.sweep,
        )
        result: dict[str, Any] = {"machine": show.machine(plan), "model": args.model_width, "shapes": []}
        for shape in shapes:
            if args.profile:
                for table in profile.tables(shape, plan, args.profile):
                    Console().print(table)
                continue
            floors = show.floors(shape, plan.model)
            measured = {"name": shape.name, **asdict(shape), "floor": floors, "arms": measure(shape, plan)}
            result["shapes"].append(measured)
            Console().print(show.table(measured))
            if args.out:
                args.out.write_text(json.dumps(result, indent=1))
    if args.markdown:
        print(show.markdown(result))
    if args.picture:
        sweep.picture(result, args.picture)


def output_layer(args: argparse.Namespace) -> None:
    """Measure memory and time of the output layer alone."""
    torch.set_num_threads(args.threads)
    sizes = head.Sizes()
    lines = head.measure(sizes, torch.device(args.device))
    Console().print(head.table(sizes, lines))
    if args.out:
        args.out.write_text(json.dumps({"head": asdict(sizes), "lines": lines}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", type=parse, default=SHAPES, help="PROMPTxGROUPxREPLY[text][@PROMPTS]")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="default: all")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each arm")
    parser.add_argument("--warmup", type=int, default=1, help="untimed steps before them")
    parser.add_argument("--threads", type=int, default=2, help="torch threads per arm")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--model-width", choices=("tiny", "qwen2.5-vl-3b"), default="tiny")
    parser.add_argument("--sweep", action="store_true", help="group sizes 2 to 32 and prompts of 60 to 4,000 tokens")
    parser.add_argument("--head", action="store_true", help="measure only the output layer, with 151,936 tokens")
    parser.add_argument("--profile", choices=("plain", "shared"), help="profile a step instead of timing it")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    parser.add_argument("--picture", type=Path, help="plot the sweep (with --sweep)")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
