"""Values and keys that cannot be meant: refused in words, before torch is imported, in a message that fits a screen."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from mmpost import cli
from mmpost.config import parsing, run_config
from mmpost.config.settings import OptimSettings
from mmpost.core.display import MAX_CHARACTERS, MAX_LINES
from mmpost.errors import ConfigError
from mmpost.objectives.policy import PolicyLoss
from mmpost.selection.selectors import VarianceSelection
from mmpost.tasks.visurf import ViSurf
from mmpost.transforms.dynamic_sampling import DropZeroVariance
from mmpost.types import Outputs
from tests.objectives.ragged import batch

DIGITS = "9" * 100_000


def refused(*arguments: str) -> str:
    with pytest.raises(ConfigError) as error:
        run_config.check_early(run_config.load(arguments)[0])
    return str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lr=inf", "optim.lr: input should be a finite number, found 'inf'"),
        ("optim.lr=.nan", "optim.lr: input should be a finite number, found nan"),
        ("optim.lr=1e999", "optim.lr: input should be a finite number, found inf"),
        ("optim.betas=[0.9, 1]", "optim.betas.1: input should be less than 1"),
        ("optim.betas=[-1, 0.9]", "optim.betas.0: input should be greater than or equal to 0"),
        ("optim.eps=-1", "optim.eps: input should be greater"),
        ("optim.weight_decay=-1", "optim.weight_decay: input should be greater"),
        ("optim.lr_multipliers={vision: -1}", "optim.lr_multipliers.vision: input should be greater"),
        ("optim.lr_multipliers={vision: inf}", "optim.lr_multipliers.vision: input should be a finite"),
        ("model.lora.alpha=-1", "model.lora.alpha: input should be greater"),
        ("model.min_pixels=0", "model.min_pixels: input should be greater"),
        ("model.video_total_pixels=-1", "model.video_total_pixels: input should be greater"),
        ("model.fps=inf", "model.fps: input should be a finite number"),
        ("data.split=[.nan, 0.5, 0.5]", "data.split.0: input should be a finite number"),
        ("compute.threads=1000000", "compute.threads: input should be less than or equal to 4096"),
        ("stages.rl.fraction=-1", "stages.rl.fraction: input should be greater"),
        ("stages.rl.optim.lr=inf", "stages.rl.optim.lr: input should be a finite number"),
        ("seed=18446744073709551616", "seed: wanted a number of at most 64 bits"),
        ("seed=-9223372036854775809", "seed: wanted a number of at most 64 bits"),
        ("steps=99999999999999999999", "steps: wanted a number of at most 64 bits"),
        (f"seed={DIGITS}", "seed: unable to parse"),
        (f"seed=0x{'f' * 100_000}", "seed: input should be a valid integer"),
    ],
)
def test_a_value_out_of_bounds_is_refused(setting: str, message: str) -> None:
    assert message in refused("task=visurf", setting)


@pytest.mark.parametrize(
    "fields", [{"scenes": -1}, {"sft_fraction": 1.5}, {"sft_fraction": float("nan")}, {"bench_scenes": 2**64}]
)
def test_fields_of_tasks_have_bounds(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"task\."):
        run_config.decode(ViSurf, fields, "task.")


def test_numbers_at_the_bounds_are_accepted() -> None:
    assert run_config.load(["task=visurf", f"seed={2**64 - 1}"])[0].seed == 2**64 - 1
    assert OptimSettings(lr=0.0, betas=(0.0, 0.0), eps=0.0, weight_decay=0.0).eps == 0


BOUNDS: list[tuple[type[BaseModel], dict[str, Any], dict[str, Any]]] = [
    (OptimSettings, {"max_grad_norm": math.inf}, {"max_grad_norm": math.nan}),
    (PolicyLoss, {"clip_high": math.inf}, {"clip_low": math.inf}),
    (PolicyLoss, {"delta": math.inf}, {"delta": math.nan}),
    (PolicyLoss, {"loss_type": "cispo", "cispo_cap": math.inf}, {"loss_type": "cispo", "cispo_cap": math.nan}),
    (PolicyLoss, {"kl_bound": math.inf}, {"beta": math.inf}),
    (PolicyLoss, {"mismatch_high": math.inf}, {"mismatch_low": math.inf}),
    (PolicyLoss, {"old": "column", "off_policy_max": math.inf}, {"old": "column", "off_policy_max": math.nan}),
    (DropZeroVariance, {"bounds": (-math.inf, math.inf)}, {"bounds": (math.nan, 1.0)}),
    (VarianceSelection, {"means": (0.1, math.inf)}, {"top": math.inf}),
]


@pytest.mark.parametrize(("section", "unbounded", "wrong"), BOUNDS)
def test_infinity_is_accepted_where_it_means_no_bound(
    section: type[BaseModel], unbounded: dict[str, Any], wrong: dict[str, Any]
) -> None:
    made = section.model_validate(unbounded)
    stored = parsing.parse_yaml(parsing.dump(made.model_dump(mode="json")), "stored")
    assert section.model_validate(stored) == made
    with pytest.raises(ValueError, match=r"finite|NaN|greater than"):
        section.model_validate(wrong)


def test_an_infinite_bound_is_typed_as_yaml_writes_it() -> None:
    config, _ = run_config.load(["task=visurf", "task.policy.mismatch_high=.inf", "optim.max_grad_norm=.inf"])
    assert config.optim.max_grad_norm == math.inf
    assert run_config.decode(ViSurf, run_config.task_fields(config.task), "task.").policy.mismatch_high == math.inf


@pytest.mark.parametrize(
    ("bounded", "options"),
    [
        ({"delta": 1e30}, {}),
        ({"clip_high": 1e30}, {}),
        ({"cispo_cap": 1e30}, {"loss_type": "cispo"}),
        ({"kl_bound": 1e30}, {"beta": 0.1}),
        ({"mismatch_high": 1e30}, {"mismatch": "token", "mismatch_action": "truncate"}),
        ({"off_policy_max": 1e30}, {}),
    ],
)
def test_an_infinite_bound_is_like_one_that_is_never_reached(
    bounded: dict[str, float], options: dict[str, Any]
) -> None:
    rows = torch.randn(4, 6, generator=torch.manual_seed(0), dtype=torch.float64)
    logp, *others = (rows / 4 - 1).unbind()
    names = ("old_logp", "ref_logp", "behaviour_logp")
    columns: dict[str, Any] = {name: row.view(2, 3).tolist() for name, row in zip(names, others, strict=True)}
    losses = []
    for bound in (1e30, math.inf):
        logp = logp.detach().requires_grad_()
        objective = PolicyLoss(old="column", **dict.fromkeys(bounded, bound), **options)
        loss = objective(Outputs(logp=logp), batch([3, 3], advantage=[1.0, -1.0], **columns)).terms["policy"]
        loss.backward()
        assert logp.grad is not None
        losses.append((loss.item(), logp.grad.tolist()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("save.every=3", "unknown key save.every: use checkpoint.every"),
        ("save={every: 3}", "unknown key save.every: use checkpoint.every"),
        ("Task.group=3", "unknown key Task.group: renamed to task.num_generations"),
        ("Task.num_generations=3", "use task.num_generations"),
        ("Optim.LR=3", "did you mean optim.lr?"),
        ("task.group=3", "renamed to task.num_generations"),
        ("task.grup=3", "did you mean task.num_generations?"),
        ("task.smpling.top_p=1", "did you mean task.sampling.top_p?"),
        ("task.policy.epsilon=1", "use task.policy.clip_low"),
        ("eval.tasks.o={task: {name: visurf, skenes: 3}}", "did you mean eval.tasks.o.task.scenes?"),
        ("task.data.train=x", "data is a top-level section"),
        ("zzzzzzzzzzzzqqq=1", "there are task, model, data"),
        ("warmup_ratio=0.1", "use optim.warmup"),
    ],
)
def test_a_hint_names_the_key_that_was_meant(argument: str, hint: str) -> None:
    assert hint in refused("task=visurf", argument)


@pytest.mark.parametrize("command", ["train", "show"])
def test_wrong_keys_of_a_task_are_answered_without_torch(command: str) -> None:
    script = (
        f"import sys; from mmpost import cli; code = cli.main([{command!r}, 'task=visurf', 'task.grup=3', 'model=x']);"
        "sys.exit(9 if 'torch' in sys.modules or code != 1 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "mmpost: unknown key task.grup; did you mean task.num_generations?\n"


OPEN_CLASSES = {
    "extra keys": "    model_config = ConfigDict(extra='allow')\n",
    "an alias": "    scans: int = Field(default=1, alias='grup')\n",
    "raw values": "    @model_validator(mode='before')\n    def f(cls, v): return {}\n",
}


@pytest.mark.parametrize("body", OPEN_CLASSES.values(), ids=OPEN_CLASSES)
def test_a_class_that_accepts_more_than_its_annotations_is_left_to_decoding(tmp_path: Path, body: str) -> None:
    file = tmp_path / "open_task.py"
    file.write_text(f"import mmpost as mp\nclass Open(mp.Task):\n{body}    def stages(self): ...\n")
    run_config.check_early(run_config.load([f"task={file}", "task.grup=3"])[0])


def test_bases_from_elsewhere_and_broken_files_are_left_to_importing(tmp_path: Path) -> None:
    file = tmp_path / "other_task.py"
    for text in ("from other import Base\nclass A(Base): pass\n", "class (:\n", "x = 1\n"):
        file.write_text(text)
        run_config.check_early(run_config.load([f"task={file}", "task.grup=3"])[0])


def test_a_field_of_a_file_is_known_after_it_was_edited(tmp_path: Path) -> None:
    file = tmp_path / "edited_task.py"
    file.write_text("import mmpost as mp\nclass A(mp.Task):\n    one: int = 1\n    def stages(self): ...\n")
    assert "did you mean task.one?" in refused(f"task={file}", "task.onne=3")
    file.write_text("import mmpost as mp\nclass A(mp.Task):\n    onne: int = 1\n    def stages(self): ...\n# more\n")
    run_config.check_early(run_config.load([f"task={file}", "task.onne=3"])[0])


@pytest.mark.parametrize(
    "arguments",
    [
        [f"seed={DIGITS}"],
        [f"optim.lr={'x' * 100_000}"],
        [f"{'x' * 100_000}=1"],
        [f"model={'x' * 100_000}", "a=1"],
        [f"task={'x' * 100_000}"],
        [f"key{i}=1" for i in range(500)],
        [f"optim={{{', '.join(f'k{i}: 1' for i in range(500))}}}"],
        [f"data.split={list(range(5000))}"],
        ["x" * 100_000],
    ],
    ids=["digits", "value", "key", "model", "task", "keys", "section", "list", "no key"],
)
def test_a_message_fits_a_screen(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "task=visurf", *arguments]) == 1
    message = capsys.readouterr().err
    assert message.startswith("mmpost: ")
    assert message.count("\n") <= MAX_LINES
    assert len(message) < MAX_CHARACTERS + 100


def test_what_a_message_repeats_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "task=visurf", "a\u202eb\x1b[31m=1"]) == 1
    message = capsys.readouterr().err
    assert "unknown key a<U+202E>b\u241b[31m" in message
