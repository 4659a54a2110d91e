"""`mmpost check`: every problem is reported with its place, and without a traceback."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

import mmpost
from mmpost.checks.check import check
from mmpost.checks.data import SourceCheck, check_data, check_lengths
from mmpost.checks.model import saved_activations
from mmpost.checks.report import Report
from mmpost.cli import main
from mmpost.config.settings import ModelSettings
from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import DataError
from mmpost.models.chat.model import ChatModel
from mmpost.models.chat.prompt_lengths import PromptLengths
from mmpost.rollout.local import LocalRollout
from mmpost.training.context import TrainingContext
from mmpost.training.media_probe import measure_media_use, with_gold
from mmpost.types import Part, Reply, Sample
from tests.models.families import build

SOLUTION = '[{"bbox_2d": [10, 20, 40, 50], "point_2d": [25, 35]}]'
QUICK = ("task.sampling.max_tokens=4", "task.num_generations=2", "compute.threads=1")


def write_image(path: Path, seed: int, size: tuple[int, int] = (60, 84)) -> None:
    noise = torch.randint(256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(path)


def grounding_row(image: str, question: str = "the thing", solution: str = SOLUTION) -> dict[str, str]:
    return {"image": image, "problem": question, "solution": solution}


def write_rows(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("\n".join(json.dumps(r) for r in rows))
    return str(file)


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A folder with images and a file of four valid rows."""
    for i in range(4):
        write_image(tmp_path / f"{i}.jpg", i, (60 + 13 * i, 84))
    write_rows(tmp_path / "good.jsonl", [grounding_row(f"{i}.jpg") for i in range(4)])
    return tmp_path


def run(data_folder: Path, model: str, *arguments: str, train: str = "good.jsonl") -> tuple[int, str]:
    """Exit code and output of a check on user data."""
    out = io.StringIO()
    valid_file = str(data_folder / "good.jsonl")
    data = {
        "data": {"train": str(data_folder / train), "val": valid_file, "test": valid_file, "root": str(data_folder)}
    }
    code = check([{"task": "visurf"}, *QUICK, data, {"model": model}, *arguments], Report(Console(file=out)))
    return code, out.getvalue()


def flat(text: str) -> str:
    """Remove the line breaks of tables."""
    return " ".join(text.split())


def huge_png(path: Path) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def write_broken_rows(data_folder: Path) -> dict[int, str]:
    """Write bad.jsonl: two valid rows, then broken ones; returns the expected message of each broken line."""
    (data_folder / "cut.jpg").write_bytes((data_folder / "0.jpg").read_bytes()[:2000])
    huge_png(data_folder / "huge.png")
    broken_rows = [
        (grounding_row("none.jpg"), "found nothing at"),
        (grounding_row("cut.jpg"), "cut.jpg: wanted a readable image"),
        (grounding_row("huge.png"), "89,478,485 pixels, found 30000 x 30000"),
        (
            grounding_row("0.jpg", "<image><image>the thing"),
            "one <image> placeholder for each image, that is 1; found 2",
        ),
        (grounding_row("../../elsewhere.jpg"), "must lie inside the folder"),
        (grounding_row("0.jpg", solution="nope"), "wanted a solution like"),
    ]
    lines = [grounding_row("0.jpg"), grounding_row("1.jpg"), *(r for r, _ in broken_rows)]
    write_rows(data_folder / "bad.jsonl", lines)
    return {number: text for number, (_, text) in enumerate(broken_rows, 3)}


def test_a_valid_run_passes_and_every_check_reports(data_folder: Path, tiny_folder: str) -> None:
    code, out = run(data_folder, tiny_folder)
    assert code == 0
    assert "ready to train: 0 errors, 0 warnings" in out
    for section in ("data", "lengths", "rewards, stage rl", "model", "use of media", "4 samples through stage"):
        assert f"{section} ──" in out or f"{section} rl ──" in out, section
    for step in ("Generate", "InjectTruth", "Score", "GroupAdvantage", "gradient norm"):
        assert step in out
    assert max(map(len, out.splitlines())) <= 100


def test_each_broken_row_is_named_with_file_and_line(data_folder: Path, tiny_folder: str) -> None:
    expected = write_broken_rows(data_folder)
    code, out = run(data_folder, tiny_folder, train="bad.jsonl")
    assert code == 1
    output = flat(out)
    for line, text in expected.items():
        start = output.index(f"error bad.jsonl:{line}: ")
        assert text in output[start : start + 200 + len(str(data_folder)) * 2], (line, text)
    assert "bad.jsonl:1:" not in output
    assert "bad.jsonl:2:" not in output
    assert "not ready: 6 errors" in output


def test_long_lists_of_broken_rows_are_truncated_but_counted(data_folder: Path) -> None:
    file = write_rows(data_folder / "many.jsonl", [grounding_row("none.jpg")] * 30)
    out = io.StringIO()
    report = Report(Console(file=out))
    check_data([SourceCheck("train", open_dataset(file), True)], report, skip_broken=False)
    assert report.errors == 30
    assert out.getvalue().count("error ") == 10
    assert "and 20 more" in out.getvalue()


def test_gold_rejected_by_its_reward_is_an_error(data_folder: Path, tiny_folder: str) -> None:
    outside = '[{"bbox_2d": [10, 20, 40, 50], "point_2d": [55, 80]}]'
    write_rows(data_folder / "gold.jsonl", [grounding_row("0.jpg"), grounding_row("1.jpg", solution=outside)])
    code, out = run(data_folder, tiny_folder, train="gold.jsonl")
    assert code == 1
    assert "gold.jsonl:2: label gets 5, wanted the declared 6" in flat(out)
    assert "gold.jsonl:2: label with a thought gets 6, wanted the declared 7" in flat(out)
    assert "gold.jsonl:1" not in out


def test_rows_without_points_declare_what_they_can_earn(
    data_folder: Path, tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = '[{"bbox_2d": [10, 20, 40, 50], "mask": {"size": [84, 60], "counts": "PPYo0"}}]'
    rows = [grounding_row("0.jpg", solution=bare), grounding_row("1.jpg"), grounding_row("2.jpg", solution="[]")]
    write_rows(data_folder / "bare.jsonl", rows)
    code, out = run(data_folder, tiny_folder, train="bare.jsonl")
    assert code == 0, out
    assert "label 3 5.33 4 6 4 to 6" in flat(out)
    assert "label with a thought 3 6.33 5 7 5 to 7" in flat(out)
    assert "point_2d" not in capsys.readouterr().err
    write_rows(data_folder / "bare.jsonl", rows[:1])
    code, out = run(data_folder, tiny_folder, 'task.prompt={question}, as "point_2d"', train="bare.jsonl")
    assert code == 0, out
    assert capsys.readouterr().err.count("bare.jsonl: the prompt asks for point_2d, which no row has") == 1


def test_undeclared_gold_must_outscore_empty_and_random_replies(data_folder: Path, tiny_folder: str) -> None:
    file = write_rows(data_folder / "qa.jsonl", [{"image": "0.jpg", "problem": "how many?", "solution": "3"}])
    out = io.StringIO()
    arguments = ["task=grpo", *QUICK, {"model": tiny_folder, "data": {"train": file}}]
    assert check([*arguments, "task.rewards={text.answer_match: 1}"], Report(Console(file=out))) == 0, out.getvalue()
    assert "dropped all" not in out.getvalue()
    code = check([*arguments, "task.rewards={text.non_repeat: 1}"], Report(Console(file=out)))
    assert code == 1
    assert "qa.jsonl:1: gold gets 1, wanted more than the 1 of the empty reply" in flat(out.getvalue())


def test_a_template_without_the_assistants_marker_is_an_error(
    data_folder: Path, tiny_folder: str, tmp_path: Path
) -> None:
    folder = tmp_path / "unmarked"
    shutil.copytree(tiny_folder, folder)
    template = folder / "chat_template.jinja"
    text = template.read_text()
    template.write_text(text[: text.index("{%- if add_generation_prompt")])
    code, out = run(data_folder, str(folder))
    assert code == 1
    assert "writes no generation prompt" in flat(out)


def test_an_unknown_key_stops_before_data_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "task=visurf", "data.trian=rows.jsonl"]) == 1
    assert "unknown key data.trian; did you mean data.train?" in capsys.readouterr().err


def test_a_parquet_file_with_a_wrong_column_is_named(
    data_folder: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", data_folder / "cache")
    file = data_folder / "rows.parquet"
    datasets.Dataset.from_dict({"picture": ["0.jpg"], "label": ["x"]}).to_parquet(str(file))
    code, out = run(data_folder, tiny_folder, train="rows.parquet")
    assert code == 1
    assert "Found the columns picture, label" in flat(out)
    assert "not ready: 1 error, 0 warnings" in out


def test_prompts_longer_than_the_context_are_an_error(data_folder: Path, tiny_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "short"
    shutil.copytree(tiny_folder, folder)
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["max_position_embeddings"] = 20
    (folder / "config.json").write_text(json.dumps(settings))
    code, out = run(data_folder, str(folder))
    assert code == 1
    assert re.search(r"4 prompts exceed the model's 20 positions \(longest: \d+, \S+\.jsonl:\d\)", flat(out))


@pytest.mark.parametrize("size", [(60, 84), (31, 200), (500, 333)])
def test_prompt_lengths_from_headers_equal_those_of_the_processor(
    data_folder: Path, tiny_folder: str, size: tuple[int, int]
) -> None:
    write_image(data_folder / "odd.png", 1, size)
    write_rows(data_folder / "odd.jsonl", [grounding_row("odd.png")])
    sample = open_dataset(data_folder / "odd.jsonl")[0]
    lengths = PromptLengths(tiny_folder, ModelSettings(name=tiny_folder))
    assert lengths.estimate(sample) == lengths.exact(sample)
    assert lengths.exact(sample).media > 1


def test_prompt_lengths_work_for_every_family(data_folder: Path, tmp_path: Path) -> None:
    is_exact = {}
    for name in ("qwen3_vl", "idefics3", "gemma3"):
        build(name, tmp_path / name)
        lengths = PromptLengths(str(tmp_path / name), ModelSettings(name=name))
        out = io.StringIO()
        source_check = SourceCheck("train", open_dataset(data_folder / "good.jsonl"), True, usable=[0, 1, 2, 3])
        check_lengths([source_check], lengths, 10, Report(Console(file=out)), skip_broken=False)
        is_exact[name] = "exact on 4" in out.getvalue()
        assert ("processor, on 4" in out.getvalue()) is not is_exact[name]
        assert lengths.exact(source_check.source[0]).media >= 4
        assert lengths.coordinate_frame(source_check.source[0]) is not None
        assert lengths.prompt.generation_prompt().strip()
    assert is_exact == {"qwen3_vl": True, "idefics3": True, "gemma3": False}


def load_context(folder: str) -> tuple[TrainingContext, ChatModel]:
    model = ChatModel.load(folder, ModelSettings(name=folder))
    return TrainingContext(model, LocalRollout(model), 0), model


def samples_with_reply(data_folder: Path) -> list[Sample]:
    output = Reply((Part("text", "Three.", "assistant"),))
    return [Sample(s.uid, s.prompt, (output,)) for s in open_dataset(data_folder / "good.jsonl")]


def test_the_media_probe_detects_a_model_that_ignores_media(data_folder: Path, tiny_folder: str) -> None:
    context, model = load_context(tiny_folder)
    use = measure_media_use(with_gold(samples_with_reply(data_folder), (), context), context)
    assert use is not None
    assert min(use.blank or 0, use.swap or 0) > 1e-3
    assert use.noise < 1e-5
    assert not use.unused
    assert not use.doubtful
    with torch.no_grad():
        for p in model.module.model.visual.merger.parameters():
            p.zero_()
    use = measure_media_use(with_gold(samples_with_reply(data_folder), (), context), context)
    assert use is not None
    assert use.unused
    assert use.doubtful or use.noise == 0.0
    assert measure_media_use([Sample("a", (Part("text", "a"),), (context.encode_reply("b", "data"),))], context) is None


def test_media_that_change_nothing_are_an_error(data_folder: Path, tiny_folder: str, tmp_path: Path) -> None:
    _, model = load_context(tiny_folder)
    with torch.no_grad():
        for p in model.module.model.visual.merger.parameters():
            p.zero_()
    model.save(tmp_path / "blind")
    code, out = run(data_folder, str(tmp_path / "blind"))
    assert code == 1
    assert "the media have no effect" in flat(out)
    assert "vision is trainable, but gold replies give it no gradient" in flat(out)


def test_the_table_shows_frozen_parts_and_adapters(data_folder: Path, tiny_folder: str) -> None:
    code, out = run(data_folder, tiny_folder, "model.freeze=[vision, projector]")
    assert code == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["vision"][2:] == ["0", "frozen"]
    assert lines["head"][1] == lines["head"][2]
    code, out = run(data_folder, tiny_folder, "model.freeze=[vision, projector, language, head]")
    assert code == 1
    assert "nothing trains" in out


def test_activation_memory_counts_each_tensor_once_without_weights() -> None:
    layer = torch.nn.Linear(8, 16)
    x = torch.randn(4, 8, requires_grad=True)
    with saved_activations(layer) as saved:
        layer(x).square()
    assert saved.bytes == 4 * 8 * 4 + 4 * 16 * 4  # the input, and the output, which square saves


def train(data_folder: Path, tiny_folder: str, **data: str) -> dict[str, Any]:
    valid_file = str(data_folder / "good.jsonl")
    return mmpost.train(
        task={"name": "visurf", "prompts_per_step": 8, "num_generations": 2, "sampling": {"max_tokens": 4}},  # type: ignore[arg-type]
        model=tiny_folder,
        data={
            "train": str(data_folder / "bad.jsonl"),
            "val": valid_file,
            "test": valid_file,
            "root": str(data_folder),
            **data,
        },
        steps=2,
        log={"progress": False, "tensorboard": False},
        out=str(data_folder / "run"),
    )


def test_broken_rows_stop_a_run_unless_it_skips_them(
    data_folder: Path, tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = write_broken_rows(data_folder)
    with pytest.raises(DataError, match=r"bad\.jsonl:\d"):
        train(data_folder, tiny_folder)
    shutil.rmtree(data_folder / "run")
    capsys.readouterr()
    summary = train(data_folder, tiny_folder, on_error="skip")
    assert summary["status"] == "done"
    assert summary["skipped"]["rows"] == len(expected)
    for line in expected:
        assert any(f"bad.jsonl:{line}" in text for text in summary["skipped"]["named"])
    printed = capsys.readouterr().err
    assert printed.count("skipped (data.on_error=skip)") == len(expected)
    metrics = [json.loads(line) for line in (data_folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["data/skipped_rows"] for line in metrics] == [6.0, 6.0]
    assert metrics[0]["probe/blank"] > 100 * metrics[0]["probe/noise"]
    assert "probe/blank" not in metrics[1]


def test_a_run_that_skips_gets_warnings_for_broken_rows(data_folder: Path, tiny_folder: str) -> None:
    expected = write_broken_rows(data_folder)
    code, out = run(data_folder, tiny_folder, "data.on_error=skip", train="bad.jsonl")
    assert code == 0
    assert f"0 errors, {len(expected)} warnings" in out
    assert "6 rows will be skipped (75.0%" in flat(out)


def test_an_exception_in_user_code_is_reported_in_one_line(
    data_folder: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmpost.tasks.visurf import ViSurf

    def broken(self: ViSurf) -> Any:
        raise KeyError("no such thing")

    monkeypatch.setattr(ViSurf, "stages", broken)
    code, out = run(data_folder, tiny_folder)
    assert code == 1
    assert "KeyError: 'no such thing' (set MMPOST_TRACEBACK=1 for the traceback)" in flat(out)
    monkeypatch.setenv("MMPOST_TRACEBACK", "1")
    with pytest.raises(KeyError):
        run(data_folder, tiny_folder)
