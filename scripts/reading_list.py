"""Lists the files that one GRPO step executes, with their lines of code.

    python scripts/reading_list.py [--all]

Traces one rollout batch and one optimizer step of `task=visurf` on a model with random weights. Media caches and
prefix sharing are left out (`--all` keeps them): a step can be understood without them, and each has a README. Blank
lines, comments and docstrings are not counted.
"""

from __future__ import annotations

import ast
import io
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (
    *("data/media/", "mmpost/models/media/", "mmpost/models/prefix/"),
    *("mmpost/models/chat/feature_cache.py", "mmpost/models/chat/packing.py"),
)


def executed_files(run: Any) -> set[Path]:
    """The files of this repository in which functions are called while `run()` runs."""
    codes: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    paths = {Path(code.co_filename).resolve() for code in codes if not code.co_filename.startswith("<")}
    return {path for path in paths if ROOT in path.parents and ".venv" not in path.parts}


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - set(_docstring_lines(ast.parse(text))))


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        for child in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield from range(child.lineno, (child.end_lineno or child.lineno) + 1)


def one_step(folder: str) -> Any:
    """A function that runs one rollout batch and one optimizer step; the one-time setup is done before."""
    from mmpost.config import run_config
    from mmpost.runs.run import Run
    from mmpost.training import trainer
    from mmpost.training.batches import RolloutBatcher
    from mmpost.training.trainer import LocalEngine, StopSignal

    settings = ["task=visurf", "model=random-tiny", "task.prompts_per_step=2", "task.num_generations=2"]
    more = ["task.sampling.max_tokens=4", "task.scenes=8", "model.device=cpu", "log.progress=false"]
    config, _ = run_config.load([*settings, *more])
    run = Run(config, Path(folder))
    (stage,) = run.task.stages()
    update = run._update(stage)
    update.start(run.model.module, run.model.parameter_groups(), 1)
    batcher, engine = RolloutBatcher(stage, run.context), LocalEngine(run.model.module, update)
    until = trainer.StopCondition(1, StopSignal())
    return lambda: trainer.train_stage(
        run.context, batcher, engine, trainer.StageProgress(), until, lambda metrics, samples: None
    )


def main() -> None:
    """Print each file with its lines of code, and the totals."""
    with tempfile.TemporaryDirectory() as folder:
        paths = executed_files(one_step(folder))
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    names.pop("scripts/reading_list.py", None)
    if "--all" not in sys.argv[1:]:
        names = {name: path for name, path in names.items() if not name.startswith(LEFT_OUT)}
    total = 0
    for name in sorted(names):
        lines = code_lines(names[name])
        total += lines
        print(f"{lines:5d}  {name}")
    print(f"{total:5d}  lines of code in {len(names)} files")


if __name__ == "__main__":
    main()
