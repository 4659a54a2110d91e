"""Properties that hold for any rows, settings, replies and logged texts, tried on generated ones (hypothesis)."""

from __future__ import annotations

import csv
import itertools
import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mmpost.config import parsing, run_config
from mmpost.core.display import MAX_CHARACTERS, MAX_LINES, UNSEEN, fitted, visible
from mmpost.core.run_files import ReplyLine, read_lines
from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import ConfigError, DataError
from mmpost.listeners.files import SamplesLog
from mmpost.report.page import write_report
from mmpost.rewards import box, span, text
from mmpost.types import Part, Reply, Sample
from tests.contracts.test_rewards import rewards
from tests.report.test_report import data_of

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
WORDS = TEXTS.filter(lambda value: bool(value.strip()))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("query", "response", "messages", "images", "solution", "id", "history", "objects", "rejected", "label", "audio")
REPLIES = st.lists(
    st.sampled_from(
        (
            *(
                "<think>",
                "</think>",
                "<answer>",
                "</answer>",
                "<caption>",
                "<summary>",
                "[",
                "]",
                "{",
                "}",
                '"',
                ",",
                ":",
            ),
            *(
                '{"bbox_2d": [1, 2, 30, 40], "point_2d": [9, 9]}',
                '{"bbox_2d": [1, 2]}',
                "B",
                "(A)",
                "7",
                "-1e999",
                "f(1, x)",
            ),
            *(
                '{"start_time": "1.5", "end_time": "3"}',
                "change_size(1, 'small')",
                "\\frac{1}{2}",
                "\n",
                " ",
                ".",
                "Step 2",
            ),
        )
    ),
    max_size=12,
).map("".join)


# ---- rows


@quick
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_rows_are_the_same_from_every_format(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    rows = [{"query": q, "response": r} for q, r in pairs]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [
        [(s.prompt[0].value, s.replies[0].text) for s in open_dataset(tmp_path / f"a.{suffix}")]
        for suffix in ("jsonl", "json", "parquet")
    ]
    assert read == [pairs] * 3


@quick
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_cells_of_csv_are_what_was_written(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    pairs = [(a.replace("\r", " ").replace("\x00", ""), b.replace("\r", " ").replace("\x00", "")) for a, b in pairs]
    pairs = [(f"{a}.", f"{b}.") for a, b in pairs]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("query", "response"), *pairs])
    assert [(s.prompt[0].value, s.replies[0].text) for s in open_dataset(tmp_path / "a.csv")] == pairs


@quick
@given(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
def test_no_row_ends_the_reading_of_others(tmp_path: Path, row: Any) -> None:
    good = '{"query": "a", "response": "b"}'
    (tmp_path / "a.jsonl").write_text(f"{good}\n{json.dumps(row)}\n{good}\n")
    samples = open_dataset(tmp_path / "a.jsonl")
    assert samples[0].replies[0].text == samples[len(samples) - 1].replies[0].text == "b"
    for i in range(1, len(samples) - 1):
        try:
            read: Sample | str = samples[i]
        except DataError as e:
            read = str(e)
        if isinstance(read, Sample):
            assert read.uid not in {samples[0].uid, samples[len(samples) - 1].uid}
        else:
            assert read.startswith("a.jsonl:2: ")
            assert len(read) < 2000


# ---- configuration


@quick
@given(st.dictionaries(TEXTS, JSON, max_size=4))
def test_yaml_that_is_written_reads_back_equal(value: dict[str, Any]) -> None:
    again = parsing.parse_yaml(parsing.dump(value), "here")
    assert json.dumps(again or {}, sort_keys=True) == json.dumps(value, sort_keys=True)


LAYERS = st.dictionaries(
    st.sampled_from(("task", "model", "optim", "steps")),
    st.integers() | st.sampled_from(("a", "b")) | st.dictionaries(st.sampled_from(("name", "lr", "x")), st.integers()),
)


@quick
@given(LAYERS, LAYERS, LAYERS)
def test_layers_merge_in_any_grouping(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    merge = run_config.merge
    if all(
        isinstance(v, int) == isinstance(w, int)
        for x, y in ((a, b), (b, c), (a, c))
        for k, v in x.items()
        for w in [y.get(k, v)]
    ):
        assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == merge(a, {}) == merge({}, a)


WORD_LISTS = st.permutations(
    ("optim.lr=1e-4", "model=random-tiny", "task.sampling.max_tokens=4", "seed=3", "task=visurf")
)


@quick
@given(WORD_LISTS)
def test_the_order_of_arguments_does_not_matter(words: list[str]) -> None:
    assert run_config.load(words)[0] == run_config.load(sorted(words))[0]


@quick
@given(st.floats())
def test_a_number_is_taken_as_it_is_or_refused(value: float) -> None:
    words = ["task=visurf", f"optim.lr={value!r}"]
    if math.isfinite(value) and value >= 0:
        assert run_config.load(words)[0].optim.lr == value
    else:
        with pytest.raises(ConfigError, match=r"optim\.lr"):
            run_config.load(words)


# ---- rewards


@quick
@given(REPLIES)
def test_rewards_are_finite_for_any_reply(reply: str) -> None:
    boxes = Sample("a", (), truth={"boxes": [[1, 2, 30, 40]], "points": [[9, 9]], "frame": [84, 84]})
    made = Reply((Part("text", reply, "assistant"),))
    for name, reward in box.REWARDS.items():
        value = reward(boxes, made)
        assert value is not None, name
        assert 0 <= value <= {"answer_format": 2, "box_accuracy": 3}.get(name, 1), name
    assert text.think_format(boxes, made) <= text.thinks(boxes, made)
    for name, reward in rewards().items():
        if name.startswith("mmpost.rewards.text") or name.startswith("text"):
            assert math.isfinite(reward(boxes, made) or 0.0), name


BOXES = st.lists(st.floats(-100, 100), min_size=4, max_size=4)


@quick
@given(st.lists(BOXES, max_size=4), st.lists(BOXES, max_size=4), st.floats(0.1, 10))
def test_iou_is_symmetric_within_bounds_and_scale_invariant(a: Any, b: Any, scale: float) -> None:
    first, second = np.array(a, float).reshape(-1, 4), np.array(b, float).reshape(-1, 4)
    values = box.iou(first, second)
    assert ((values >= 0) & (values <= 1 + 1e-9)).all()
    np.testing.assert_allclose(values, box.iou(second, first).T, atol=1e-9)
    np.testing.assert_allclose(values, box.iou(first * scale, second * scale), atol=1e-6)
    sizes = first[:, 2:] - first[:, :2]
    proper = (sizes > 1e-3).all(-1)
    np.testing.assert_allclose(np.diag(box.iou(first, first))[proper], 1.0)


@quick
@given(st.integers(0, 4), st.integers(0, 4), st.randoms(use_true_random=False))
def test_the_best_matching_is_the_best_of_all(rows: int, columns: int, rng: Any) -> None:
    scores = np.array([[rng.choice((0.0, 0.5, 1.0, 3.0)) for _ in range(columns)] for _ in range(rows)]).reshape(
        rows, columns
    )
    wide = scores if rows <= columns else scores.T
    every = (
        sum(wide[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert box.best_total(scores) == max(every, default=0.0)


@quick
@given(st.permutations(range(3)), st.integers(0, 3))
def test_the_order_of_boxes_does_not_matter(order: list[int], n: int) -> None:
    items = [{"bbox_2d": [10 * i, 10, 10 * i + 8, 30], "point_2d": [10 * i + 4, 20]} for i in range(3)]
    truth = {"boxes": [i["bbox_2d"] for i in items], "points": [i["point_2d"] for i in items], "frame": [84, 84]}
    answers = [
        f"<answer>{json.dumps([items[i] for i in order][:n])}</answer>",
        f"<answer>{json.dumps(items[:n])}</answer>",
    ]
    scored = [box.box_accuracy(Sample("a", (), truth=truth), Reply((Part("text", t, "assistant"),))) for t in answers]
    assert scored[0] == pytest.approx(scored[1]) == pytest.approx(n)


SPANS = st.tuples(st.floats(0, 1000), st.floats(0, 1000)).map(lambda ends: (min(ends), max(ends)))


@quick
@given(SPANS, SPANS)
def test_temporal_iou_is_symmetric_and_within_bounds(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert span.tiou(a, b) == span.tiou(b, a)
    assert 0 <= span.tiou(a, b) <= 1
    assert 0 <= span.tiop(a, b) <= 1 + 1e-9


# ---- logs, reports, messages


@quick
@given(TEXTS, TEXTS, TEXTS)
def test_logged_texts_come_back_from_the_log_and_the_page(tmp_path: Path, prompt: str, reply: str, truth: str) -> None:
    log = SamplesLog()
    log.on_start(tmp_path, {}, 1)
    replies = (Reply((Part("text", reply, "assistant"),), "policy", None, {"reward": 0.5}, {"reward": 0.5}),)
    log.on_samples(1, [Sample("a", (Part("text", prompt),), replies, truth)])
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "rl", "loss": 0.5}\n')
    (line,) = read_lines(tmp_path / "samples" / "step-000001.jsonl", ReplyLine)
    assert (line["prompt"][0]["text"], line["text"], line["truth"]) == (prompt, reply, truth)
    page = write_report(str(tmp_path)).read_text("utf-8")
    data = data_of(page)
    assert (data["prompts"][0][0]["text"], data["replies"][0]["x"], data["groups"][0]["truth"]) == (
        prompt,
        reply,
        truth,
    )
    assert page.count("</script") == page.count("<script")


@quick
@given(st.text(max_size=80) | st.text("\n\u202e\x1b", min_size=MAX_LINES + 1), st.integers(1, 100))
def test_messages_obey_nothing_and_fit_a_screen(message: str, times: int) -> None:
    shown = visible(fitted(message * times))
    assert not [c for c in shown if c not in "\n\t" and unicodedata.category(c) in UNSEEN]
    assert visible(shown) == shown
    assert shown.count("\n") < MAX_LINES
    assert len(fitted(message * times)) <= MAX_CHARACTERS + 60
    assert fitted(message[:100]) == message[:100] or message.count("\n") >= MAX_LINES
