"""Reports, judged and paired: the order of the stages, what each leaves, and going on between and inside them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import metrics, same_weights

import mmpost
from mmpost.checks.check import check
from mmpost.checks.report import Report
from mmpost.config import run_config
from mmpost.data.worlds.chest.questions import Questions
from mmpost.data.worlds.chest.studies import SyntheticStudies
from mmpost.errors import DataError
from mmpost.judges.base import Verdict
from mmpost.judges.radiology.rules import RuleJudge
from mmpost.runs.configured_task import make_task
from mmpost.studies.study import Study
from mmpost.tasks.bases.reports import ReportsBase
from mmpost.tasks.cxr_preference import CxrPreference, report_summary
from mmpost.training.stage_checks import checked_stages
from mmpost.types import Part, Reply, Sample
from tests.judges.chat_server import GOOD, serving

SETTINGS: dict[str, Any] = {
    "task": {
        "name": "cxr_preference",
        "prompts_per_step": 2,
        "sft_fraction": 0.5,
        "sft_prompts_per_step": 2,
        "studies": 6,
        "together": 4,
        "bench_studies": 4,
        "sampling": {"max_tokens": 6},
    },
    "model": "random-tiny-cxr",
    "optim": {"lr": 1e-3},
    "eval": {"before": False, "max_samples": 4},
    "log": {"progress": False, "tensorboard": False, "probe_every": 0},
    "checkpoint": {"every": 1, "keep": 9},
    "steps": 4,
}


@pytest.fixture(scope="module", autouse=True)
def judged_by_length() -> Iterator[None]:
    """Reports of random weights say nothing: here a longer one is the better one, and some cannot be judged."""
    patch = pytest.MonkeyPatch()

    def judge(self: RuleJudge, pairs: Any) -> list[Verdict]:
        lengths = [len(pair[1]) for pair in pairs]
        return [Verdict(float(n)) if n % 7 else Verdict(None, "unparseable") for n in lengths]

    patch.setattr(RuleJudge, "judge", judge)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**SETTINGS, out=str(out))
    return out


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    lines = (run / "manifests" / f"{stage}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_the_stages_in_their_order() -> None:
    made = checked_stages(CxrPreference(sft_fraction=0.25))
    assert [s.name for s in made] == ["sft", "candidates", "judging", "pairing", "align"]
    assert [s.reads_from.stage if s.reads_from else None for s in made] == [
        None,
        None,
        "candidates",
        "judging",
        "pairing",
    ]
    assert [s.objective is None for s in made] == [False, True, True, True, False]
    assert (made[0].fraction, made[-1].fraction, made[-1].reference) == (0.25, 0.75, "")
    assert [s.name for s in checked_stages(CxrPreference(sft_fraction=1.0))] == ["sft"]
    assert CxrPreference().best_metric == "sampled/judge"
    assert CxrPreference(select="lc").best_metric == "sampled/lc"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["judge.by=server", "judge.server.url=http://host/v1", "judge.server.model=owner/green"], "ChatJudge"),
        (["judge.by=local", "judge.local.model=owner/green"], "ChatJudge"),
        (["judge.by=bertscore", "judge.bertscore.model=owner/bert"], "BertScore"),
    ],
)
def test_judges_are_configured_from_the_command_line(words: list[str], kind: str) -> None:
    run, _ = run_config.load(["task=cxr_preference", *(f"task.{word}" for word in words)])
    task = make_task(run)
    assert isinstance(task, CxrPreference)
    assert type(task.judge.judge()).__name__ == kind
    assert "owner/" in repr(task.judge.judge())


def test_a_run_with_a_judge_behind_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    answers = [GOOD.replace("candidate: 1.", f"candidate: {n}.") for n in range(5)]
    with serving(lambda question, turn: f"say {answers[len(question) % 5]}") as server:
        judge = {"by": "server", "server": {"url": server.url, "model": "green", "cache": str(tmp_path / "a.sqlite")}}
        task = {**SETTINGS["task"], "sft_fraction": 0.0, "judge": judge}
        mmpost.train(**{**SETTINGS, "task": task, "steps": 1}, out=str(tmp_path / "run"))
        asked = len(server.heard)
        # A second run asks for nothing that the first one has paid for.
        mmpost.train(**{**SETTINGS, "task": task, "steps": 1}, out=str(tmp_path / "again"))
        assert len(server.heard) == asked > 0
    scores = [r["scores"]["judge"] for row in rows(tmp_path / "run", "judging") for r in row["replies"]]
    assert len(set(scores)) > 1
    assert same_weights(tmp_path / "run", tmp_path / "again")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": {"loss_type": "kto"}, "pairs": {"against": "all"}}, "wants replies that are good or bad"),
        ({"judge": {"length_control": True}, "pairs": {"control": "divide"}}, "both divide a score by length"),
        ({"loss": {"loss_type": "simpo"}, "ref_model_sync_steps": 5}, "loss_type=simpo has none"),
        ({"judge": {"by": "bertscore", "bertscore": {"model": "x"}, "length_control": True}}, "by=bertscore has none"),
        ({"judge": {"form": "grade"}}, "form and reasks are about chat models"),
    ],
)
def test_settings_that_would_not_be_read_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CxrPreference.model_validate(settings)


def test_each_step_is_on_record(whole: Path) -> None:
    drawn, judged, paired = (rows(whole, name) for name in ("candidates", "judging", "pairing"))
    assert [len(r["replies"]) for r in drawn] == [4] * 6
    for before, after in zip(drawn, judged, strict=True):
        texts = [json.dumps(r["token_ids"]) for r in before["replies"]]
        assert [json.dumps(r["token_ids"]) for r in after["replies"]] == texts
        assert all(set(r["scores"]) <= {"judge"} for r in after["replies"])
    unjudged = [r["token_ids"] for row in judged for r in row["replies"] if "judge" not in r["scores"]]
    kept = [row for row in paired if "lost" not in row]
    assert kept
    for row in kept:
        chosen, rejected = row["replies"]
        assert (chosen["columns"]["chosen"], rejected["columns"]["chosen"]) == (1.0, 0.0)
        there = [r["scores"]["judge"] for r in judged[row["index"]]["replies"] if r["scores"]]
        assert (chosen["scores"]["judge"], rejected["scores"]["judge"]) == (max(there), min(there))
    assert unjudged
    assert all(r["token_ids"] not in unjudged for row in kept for r in row["replies"])


def test_the_tower_stays_and_the_rest_learns(whole: Path) -> None:
    from small_runs import weights

    after, before = weights(whole), _at(whole, "step-2")
    moved = {name for name in after if not after[name].equal(before[name])}
    tower = {name for name in after if "visual.blocks" in name or "visual.patch_embed" in name}
    assert moved
    assert tower
    assert not moved & tower


def _at(run: Path, step: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(next(iter((run / "checkpoints" / step).glob("*.safetensors"))))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_going_on_between_the_steps_ends_in_the_same_bits(step: int, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    if step < 3:
        # Killed inside a step that makes data: half of it is there, and nothing of what follows.
        file = run / "manifests" / "judging.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:4]) + '{"uid": "cut')
        (run / "manifests" / "pairing.jsonl").unlink()
    mmpost.train(resume=str(run / "checkpoints" / f"step-{step}"))
    assert same_weights(run, whole)
    assert metrics(run) == metrics(whole)
    assert rows(run, "judging") == rows(whole, "judging")


def test_a_kill_while_candidates_are_drawn_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpost.judges.transform import JudgeScore

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    settings = run_config.merge(SETTINGS, {"task": {"sft_fraction": 0.0}, "steps": 2})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JudgeScore, "__call__", dies)
        mmpost.train(**settings, out=str(tmp_path / "run"))
    drawn = rows(tmp_path / "run", "candidates")
    assert mmpost.train(resume=str(tmp_path / "run"))["status"] == "done"
    assert rows(tmp_path / "run", "candidates") == drawn


def test_candidates_that_are_all_the_same_stop_the_run_with_a_reason(tmp_path: Path) -> None:
    settings = run_config.merge(SETTINGS, {"task": {"sft_fraction": 0.0, "pairs": {"margin": 1e6}}, "steps": 2})
    with pytest.raises(DataError, match=r"found none of 6 \(dropped by a transform\)"):
        mmpost.train(**settings, out=str(tmp_path / "run"))


@pytest.mark.parametrize("kind", ["kto", "simpo", "orpo"])
def test_other_losses_are_a_setting(kind: str, tmp_path: Path) -> None:
    settings = run_config.merge(SETTINGS, {"task": {"sft_fraction": 0.0, "loss": {"loss_type": kind}}, "steps": 1})
    assert mmpost.train(**settings, out=str(tmp_path / "run"))["status"] == "done"


def test_the_summary_tells_scores_from_missing_ones() -> None:
    def one(text: str, **scores: float) -> Sample:
        return Sample("a", (), (Reply((Part("text", text),), scores=scores),), truth="clear")

    words = {"rouge_l": 0.5, "bleu": 0.5, "words": 4.0, "rel_verbosity": 2.0, "repetition": 0.0}
    found = report_summary([one("x", judge=0.8, **words), one("y", **words)])
    assert (found["judge"], found["lc"], found["unscored"]) == pytest.approx((80, 40, 50))
    assert (found["rouge_l"], found["words"], found["rel_verbosity"]) == pytest.approx((50, 4, 2))


def test_benches_report_factuality_length_and_what_may_be_lost(whole: Path) -> None:
    after = json.loads((whole / "summary.json").read_text())["eval_after"]
    assert {"reports/rel_verbosity", "reports/repetition", "reports/rouge_l", "questions/accuracy"} <= set(after)
    assert [b.name for b in CxrPreference().benches("test")] == ["reports", "sampled", "questions"]


def test_train_and_bench_studies_are_not_those_of_the_base() -> None:
    task = CxrPreference(studies=4)
    source = checked_stages(task)[0].source
    asked, mixed = (stage.source for stage in ReportsBase().stages())
    met = {mixed[i].uid.partition("/")[2] for i in range(64)}
    assert isinstance(source, SyntheticStudies)
    assert any(uid.startswith("phantom-train-1-") for uid in met)
    assert not {s.uid for s in source} & met
    # Questions are asked about films of their own.
    assert isinstance(asked, Questions)
    assert asked.studies.seed not in (source.seed, 5)


def test_check_hands_the_samples_of_one_stage_to_the_next() -> None:
    out = io.StringIO()
    words = ("model.gradient_checkpointing=false", "compute.threads=1")
    assert check([SETTINGS, *words], Report(Console(file=out, width=200))) == 0, out.getvalue()
    printed = out.getvalue()
    assert "4 samples through stage judging" in printed
    assert "EncodePairs" in printed.partition("through stage align")[2]


def test_the_study_that_ships_has_arms_that_can_be_trained() -> None:
    study = Study.load("cxr_preference")
    kinds = {name: arm.get("task", {}).get("loss", {}).get("loss_type") for name, arm in study.arms.items()}
    for name in ("dpo", "ipo", "kto", "simpo", "orpo"):
        assert kinds[name] == kinds[f"{name}_lc"] == name
    for arm in study.arms.values():
        given = run_config.merge(study.set.get("task", {}), arm.get("task", {}))
        assert checked_stages(run_config.decode(CxrPreference, given))
