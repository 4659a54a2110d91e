"""CxrPreference: the order of the stages, what each records, and resuming between and inside them."""

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
        "generation_batch_size": 4,
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
    """Score reports by length, some as unparseable: rules cannot rank the reports of random weights."""
    patch = pytest.MonkeyPatch()

    def judge(self: RuleJudge, pairs: Any) -> list[Verdict]:
        lengths = [len(pair[1]) for pair in pairs]
        return [Verdict(float(n)) if n % 7 else Verdict(None, "unparseable") for n in lengths]

    patch.setattr(RuleJudge, "judge", judge)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**SETTINGS, out=str(out))
    return out


def recorded_rows(run: Path, stage: str) -> list[dict[str, Any]]:
    lines = (run / "manifests" / f"{stage}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_the_order_of_the_stages() -> None:
    stages = checked_stages(CxrPreference(sft_fraction=0.25))
    assert [s.name for s in stages] == ["sft", "candidates", "judging", "pairing", "align"]
    assert [s.reads_from.stage if s.reads_from else None for s in stages] == [
        None,
        None,
        "candidates",
        "judging",
        "pairing",
    ]
    assert [s.objective is None for s in stages] == [False, True, True, True, False]
    assert (stages[0].fraction, stages[-1].fraction, stages[-1].reference) == (0.25, 0.75, "")
    assert [s.name for s in checked_stages(CxrPreference(sft_fraction=1.0))] == ["sft"]
    assert CxrPreference().best_metric == "reports/judge"
    assert CxrPreference(best_by="lc").best_metric == "reports/lc"
    assert CxrPreference(best_by="lc", best_decoding="sampled").best_metric == "sampled/lc"


@pytest.mark.parametrize(
    ("arguments", "class_name"),
    [
        (["judge.by=server", "judge.server.url=http://host/v1", "judge.server.model=owner/green"], "ChatJudge"),
        (["judge.by=local", "judge.local.model=owner/green"], "ChatJudge"),
        (["judge.by=bertscore", "judge.bertscore.model=owner/bert"], "BertScore"),
    ],
)
def test_judges_are_configured_from_the_command_line(arguments: list[str], class_name: str) -> None:
    run, _ = run_config.load(["task=cxr_preference", *(f"task.{argument}" for argument in arguments)])
    task = make_task(run)
    assert isinstance(task, CxrPreference)
    assert type(task.judge.judge()).__name__ == class_name
    assert "owner/" in repr(task.judge.judge())


def test_a_run_with_a_judge_behind_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    answers = [GOOD.replace("candidate: 1.", f"candidate: {n}.") for n in range(5)]
    with serving(lambda question, turn: f"say {answers[len(question) % 5]}") as server:
        judge = {"by": "server", "server": {"url": server.url, "model": "green", "cache": str(tmp_path / "a.sqlite")}}
        task = {**SETTINGS["task"], "sft_fraction": 0.0, "judge": judge}
        mmpost.train(**{**SETTINGS, "task": task, "steps": 1}, out=str(tmp_path / "run"))
        num_requests = len(server.requests)
        # The second run takes every answer from the cache.
        mmpost.train(**{**SETTINGS, "task": task, "steps": 1}, out=str(tmp_path / "again"))
        assert len(server.requests) == num_requests > 0
    scores = [r["scores"]["judge"] for row in recorded_rows(tmp_path / "run", "judging") for r in row["replies"]]
    assert len(set(scores)) > 1
    assert same_weights(tmp_path / "run", tmp_path / "again")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": {"loss_type": "kto"}, "pairs": {"against": "all"}}, "wants replies that are good or bad"),
        ({"judge": {"length_control": True}, "pairs": {"control": "divide"}}, "both divide a score by length"),
        ({"loss": {"loss_type": "simpo"}, "ref_model_sync_steps": 5}, "loss_type=simpo has none"),
        ({"judge": {"by": "bertscore", "bertscore": {"model": "x"}, "length_control": True}}, "by=bertscore is not"),
        ({"judge": {"form": "grade"}}, "form and reasks apply to chat models"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CxrPreference.model_validate(settings)


def test_each_stage_is_recorded(finished_run: Path) -> None:
    candidates, judged, paired = (recorded_rows(finished_run, name) for name in ("candidates", "judging", "pairing"))
    assert [len(r["replies"]) for r in candidates] == [4] * 6
    for candidate_row, judged_row in zip(candidates, judged, strict=True):
        texts = [json.dumps(r["token_ids"]) for r in candidate_row["replies"]]
        assert [json.dumps(r["token_ids"]) for r in judged_row["replies"]] == texts
        assert all(set(r["scores"]) <= {"judge"} for r in judged_row["replies"])
    unjudged = [r["token_ids"] for row in judged for r in row["replies"] if "judge" not in r["scores"]]
    pairs = [row for row in paired if "lost" not in row]
    assert pairs
    for row in pairs:
        chosen, rejected = row["replies"]
        assert (chosen["columns"]["chosen"], rejected["columns"]["chosen"]) == (1.0, 0.0)
        judge_scores = [r["scores"]["judge"] for r in judged[row["index"]]["replies"] if r["scores"]]
        assert (chosen["scores"]["judge"], rejected["scores"]["judge"]) == (max(judge_scores), min(judge_scores))
    assert unjudged
    assert all(r["token_ids"] not in unjudged for row in pairs for r in row["replies"])


def test_the_frozen_encoder_keeps_its_weights_and_the_rest_trains(finished_run: Path) -> None:
    from small_runs import weights

    after, before = weights(finished_run), checkpoint_weights(finished_run, "step-2")
    changed = {name for name in after if not after[name].equal(before[name])}
    encoder = {name for name in after if "visual.blocks" in name or "visual.patch_embed" in name}
    assert changed
    assert encoder
    assert not changed & encoder


def checkpoint_weights(run: Path, checkpoint: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(next(iter((run / "checkpoints" / checkpoint).glob("*.safetensors"))))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_resuming_between_stages_is_bit_identical(step: int, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, symlinks=True)
    if step < 3:
        # As if killed inside a data-generation stage: half of its file is written, and no later one.
        file = run / "manifests" / "judging.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:4]) + '{"uid": "cut')
        (run / "manifests" / "pairing.jsonl").unlink()
    mmpost.train(resume=str(run / "checkpoints" / f"step-{step}"))
    assert same_weights(run, finished_run)
    assert metrics(run) == metrics(finished_run)
    assert recorded_rows(run, "judging") == recorded_rows(finished_run, "judging")


def test_an_interrupt_during_judging_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpost.judges.transform import JudgeScore

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    settings = run_config.merge(SETTINGS, {"task": {"sft_fraction": 0.0}, "steps": 2})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JudgeScore, "__call__", interrupt)
        mmpost.train(**settings, out=str(tmp_path / "run"))
    candidates = recorded_rows(tmp_path / "run", "candidates")
    assert mmpost.train(resume=str(tmp_path / "run"))["status"] == "done"
    assert recorded_rows(tmp_path / "run", "candidates") == candidates


def test_candidates_with_equal_scores_stop_the_run_with_a_reason(tmp_path: Path) -> None:
    settings = run_config.merge(SETTINGS, {"task": {"sft_fraction": 0.0, "pairs": {"margin": 1e6}}, "steps": 2})
    with pytest.raises(DataError, match=r"found none of 6 \(dropped by a transform\)"):
        mmpost.train(**settings, out=str(tmp_path / "run"))


@pytest.mark.parametrize("loss_type", ["kto", "simpo", "orpo"])
def test_other_losses_are_a_setting(loss_type: str, tmp_path: Path) -> None:
    settings = run_config.merge(SETTINGS, {"task": {"sft_fraction": 0.0, "loss": {"loss_type": loss_type}}, "steps": 1})
    assert mmpost.train(**settings, out=str(tmp_path / "run"))["status"] == "done"


def test_the_summary_counts_unscored_replies_separately() -> None:
    def sample(text: str, **scores: float) -> Sample:
        return Sample("a", (), (Reply((Part("text", text),), scores=scores),), truth="clear")

    text_scores = {"rouge_l": 0.5, "bleu": 0.5, "words": 4.0, "rel_verbosity": 2.0, "repetition": 0.0}
    summary = report_summary([sample("x", judge=0.8, **text_scores), sample("y", **text_scores)])
    assert (summary["judge"], summary["lc"], summary["unscored"]) == pytest.approx((80, 40, 50))
    assert (summary["rouge_l"], summary["words"], summary["rel_verbosity"]) == pytest.approx((50, 4, 2))


def test_benches_report_factuality_length_and_retained_abilities(finished_run: Path) -> None:
    after = json.loads((finished_run / "summary.json").read_text())["eval_after"]
    assert {"reports/rel_verbosity", "reports/repetition", "reports/rouge_l", "questions/accuracy"} <= set(after)
    assert [b.name for b in CxrPreference().benches("test")] == ["reports", "sampled", "questions"]


def test_train_and_bench_studies_are_disjoint_from_those_of_the_base() -> None:
    task = CxrPreference(studies=4)
    source = checked_stages(task)[0].source
    question_source, base_source = (stage.source for stage in ReportsBase().stages())
    base_studies = {base_source[i].uid.partition("/")[2] for i in range(64)}
    assert isinstance(source, SyntheticStudies)
    assert any(uid.startswith("phantom-train-1-") for uid in base_studies)
    assert not {s.uid for s in source} & base_studies
    # The questions are about separate studies.
    assert isinstance(question_source, Questions)
    assert question_source.studies.seed not in (source.seed, 5)


def test_check_passes_the_samples_of_one_stage_to_the_next() -> None:
    out = io.StringIO()
    overrides = ("model.gradient_checkpointing=false", "compute.threads=1")
    assert check([SETTINGS, *overrides], Report(Console(file=out, width=200))) == 0, out.getvalue()
    output = out.getvalue()
    assert "4 samples through stage judging" in output
    assert "EncodePairs" in output.partition("through stage align")[2]


def test_the_shipped_study_has_trainable_arms() -> None:
    study = Study.load("cxr_preference")
    loss_types = {name: arm.get("task", {}).get("loss", {}).get("loss_type") for name, arm in study.arms.items()}
    for name in ("dpo", "ipo", "kto", "simpo", "orpo"):
        assert loss_types[name] == loss_types[f"{name}_lc"] == name
    for arm in study.arms.values():
        settings = run_config.merge(study.set.get("task", {}), arm.get("task", {}))
        assert checked_stages(run_config.decode(CxrPreference, settings))
