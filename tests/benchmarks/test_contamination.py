"""`mmpost check bench=`: planted media and words are found, copies that look different are not, memory is bounded."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmpost import cli
from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.contamination import COMMON, KEPT, WORDS, Index, Question, runs, words_of
from mmpost.checks.benches import check_benches
from mmpost.commands.score import score
from mmpost.data.media.perceptual_hash import ALIKE, differing_bits, perceptual_hash
from mmpost.errors import ConfigError, DataError
from mmpost.types import Part, Sample
from tests.benchmarks.small_benches import write_questions

LONG = "which of the red boats in the harbour is moored closest to the old lighthouse on the pier"


def picture(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """Shapes on a gradient."""
    rng = np.random.default_rng(seed)
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = int(rng.integers(size[0])), int(rng.integers(size[1]))
        draw.ellipse(
            (x, y, x + int(rng.integers(10, 90)), y + int(rng.integers(10, 90))), tuple(rng.integers(256, size=3))
        )
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """POPE, each of whose six pictures has two questions, with pictures; and a folder for training data."""
    write_questions("pope", tmp_path / "benches" / "pope")
    (tmp_path / "train").mkdir()
    for place, sample in enumerate(benchmark("pope").rows(benchmark("pope").paths(tmp_path / "benches", "pope"))):
        file = tmp_path / "benches" / "pope" / sample.meta["image"]
        if not file.exists():
            picture(place).save(file, quality=95)
    return tmp_path


def bench_picture(folder: Path, name: str) -> Image.Image:
    return Image.open(folder / "benches" / "pope" / name).convert("RGB")


def check(folder: Path, rows: list[dict[str, Any]], *more: str) -> dict[str, Any]:
    train = folder / "train" / "rows.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides: dict[str, Any] = {"bench": "pope", "data": {"train": str(train), "benches": str(folder / "benches")}}
    for argument in more:
        key, _, value = argument.partition("=")
        overrides[key] = {"false": False}.get(value, value)
    return check_benches(overrides).model_dump()


def row(image: str, **content: Any) -> dict[str, Any]:
    return {"image": image, "question": "what is it?", "answer": "a boat", **content}


def test_planted_pictures_are_found_by_content_and_by_look(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder / "train"
    (place / "copy.jpg").write_bytes((folder / "benches" / "pope" / "random1.jpg").read_bytes())
    bench_picture(folder, "random2.jpg").save(place / "coded.jpg", quality=40)
    small = bench_picture(folder, "popular1.jpg")
    small.resize((small.width // 2, small.height // 2)).save(place / "small.png")
    picture(99).save(place / "other.png")
    names = ("copy.jpg", "coded.jpg", "small.png", "other.png")
    found = check(folder, [row(name) for name in names], f"out={folder / 'seen.json'}")
    assert found == json.loads((folder / "seen.json").read_text())
    kinds = {uid: [(f["kind"], f["row"]) for f in each] for uid, each in found["benches"]["pope"]["found"].items()}
    assert kinds == {
        **{key: [("file", "rows.jsonl:1")] for key in ("random/1", "random/2")},
        **{key: [("look", "rows.jsonl:2")] for key in ("random/3", "random/4")},
        **{key: [("look", "rows.jsonl:3")] for key in ("popular/1", "popular/2")},
    }
    assert (found["samples"], found["benches"]["pope"]["questions"]) == (4, 12)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pope", "12", "6", "2", "4", "0", "0"] in lines


def test_mirrored_turned_and_cropped_copies_are_not_found(folder: Path) -> None:
    original = bench_picture(folder, "random1.jpg")
    width, height = original.size
    copies = {
        "mirrored": original.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turned": original.transpose(Image.Transpose.ROTATE_90),
        "cropped": original.crop((width // 6, height // 6, width, height)),
    }
    for name, copy in copies.items():
        copy.save(folder / "train" / f"{name}.png")
    assert check(folder, [row(f"{name}.png") for name in copies])["benches"]["pope"]["found"] == {}


def test_a_picture_of_one_color_looks_like_nothing() -> None:
    assert perceptual_hash(Image.new("RGB", (64, 64), "white")) is None


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_copies_differ_by_less_than_pictures(quality: int, tmp_path: Path) -> None:
    originals = [picture(seed, (300 + 40 * seed, 240)) for seed in range(12)]
    looks = np.stack([look for each in originals if (look := perceptual_hash(each)) is not None])
    for place, each in enumerate(originals):
        each.resize((each.width // 2, each.height // 2)).save(tmp_path / "copy.jpg", quality=quality)
        look = perceptual_hash(Image.open(tmp_path / "copy.jpg"))
        assert look is not None
        differing = differing_bits(look, looks)
        assert differing[place] <= ALIKE
        assert np.delete(differing, place).min() > 2 * ALIKE


def sample(uid: str, text: str, truth: Any = None, **meta: Any) -> Sample:
    return Sample(uid, (Part("text", text),), truth=truth, meta={"image": uid, **meta})


def found_in(questions: list[Sample], *texts: str) -> list[str]:
    index = Index()
    index.add("pope", benchmark("pope"), questions)
    return [question.uid for question in index.search(sample(str(i), text) for i, text in enumerate(texts))]


def test_13_words_are_found_whatever_the_case_and_the_marks() -> None:
    words = LONG.split()
    shouted = f'He asked: "{" ".join(words[:WORDS]).upper().replace(" ", ",  ")}" - and left.'
    assert found_in([sample("q", LONG)], shouted) == ["q"]
    assert found_in([sample("q", LONG)], " ".join(words[: WORDS - 1]), " ".join(reversed(words))) == []
    assert found_in([sample("q", "what?", {"answers": [LONG]})], LONG) == ["q"]
    assert found_in([sample("q", f"<td>{'</td><td>'.join(words)}</td>")], LONG) == ["q"]


def test_characters_of_chinese_are_words() -> None:
    question = "请问图片中停在灯塔旁边的红色小船一共有几艘"
    assert found_in([sample("q", question)], f"({question[3:]})") == ["q"]
    assert len(runs(words_of(question))) == len(question) - WORDS + 1


def test_rows_of_zeros_are_no_finding() -> None:
    assert found_in([sample("q", "0 0.00 " * 20)], "0 0.00 " * 30) == []


def test_the_instruction_of_a_benchmark_is_no_finding() -> None:
    asked = [sample(f"q{i}", f"{LONG} number {i}") for i in range(COMMON + 1)]
    assert found_in(asked, LONG) == []
    assert len(found_in(asked[:COMMON], LONG)) == COMMON
    end = "Answer the question using a single word or phrase."
    things = ["dog", "cat", "cow", "boat", "cup", "tie", "bus", "bed", "kite", "fork", "sink", "book"]
    asked = [sample(thing, f"Is there a {thing} in the image? {end}") for thing in things] + [
        sample("q", f"{LONG}? {end}")
    ]
    assert found_in(asked, *(each.prompt[0].value for each in asked)) == ["q"]


def test_the_training_rows_named_for_a_question_are_few() -> None:
    index = Index()
    index.add("pope", benchmark("pope"), [sample("q", LONG)])
    found = index.search(sample(f"row {i}", LONG) for i in range(100))
    assert [each.row for each in found[Question("pope", "q")]] == [f"row {i}" for i in range(KEPT)]


def test_of_100_000_texts_one_is_in_memory() -> None:
    index = Index()
    index.add("pope", benchmark("pope"), [sample(f"q{i}", f"{LONG} {i}") for i in range(5)])

    last: deque[ref[Sample]] = deque(maxlen=3)

    def texts() -> Iterator[Sample]:
        for i in range(100_000):
            text = LONG if i == 70_000 else f"row {i} says many things about {i} boats and as many harbours of it"
            read = sample(f"{i}", text)
            last.append(ref(read))
            assert len(last) < 3 or last[0]() is None
            yield read

    found = index.search(texts())
    assert {each.row for findings in found.values() for each in findings} == {"70000"}


def test_scores_without_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train" / "copy.jpg").write_bytes((folder / "benches" / "pope" / "random1.jpg").read_bytes())
    check(folder, [row("copy.jpg")], f"out={folder / 'seen.json'}")
    questions = benchmark("pope").rows(benchmark("pope").paths(folder / "benches", "pope"))
    replies = {s.uid: s.truth if s.uid in ("random/1", "random/2") else "no" for s in questions}
    (folder / "p.json").write_text(json.dumps(replies))
    arguments = ["bench=pope", f"predictions={folder / 'p.json'}", f"data.benches={folder / 'benches'}"]
    result = score([*arguments, f"without={folder / 'seen.json'}"])
    assert result["official"]["accuracy/random"]["value"] == 0.75
    assert result["without"]["questions"] == ["random/1", "random/2"]
    rest = result["without"]["official"]["accuracy/random"]
    assert (rest["value"], rest["n"]) == (0.5, 2)
    assert "pope without 2 of 12 questions" in capsys.readouterr().out
    plain = score(arguments)
    assert plain == {key: value for key, value in result.items() if key != "without"}


def test_findings_that_cannot_be_used(folder: Path) -> None:
    (folder / "p.json").write_text(json.dumps({"random/1": "yes"}))
    arguments = ["bench=pope", f"predictions={folder / 'p.json'}", f"data.benches={folder / 'benches'}"]
    seen = folder / "seen.json"
    with pytest.raises(DataError, match=r"seen\.json: wanted what mmpost check bench=pope out=FILE writes"):
        score([*arguments, f"without={seen}"])
    for benches, message in (
        (
            {"mmau": {"release": "r", "questions": 1, "only_media": 0, "found": {}}},
            "findings of pope, found those of mmau",
        ),
        ({"pope": {"release": "r", "questions": 1, "only_media": 0, "found": {}}}, "in unverified.*found those of r"),
    ):
        seen.write_text(json.dumps({"train": [], "samples": 0, "benches": benches}))
        with pytest.raises(DataError, match=message):
            score([*arguments, f"without={seen}"])


def test_missing_media_are_named_and_need_not_be_compared(folder: Path) -> None:
    rows = [row("none.jpg"), row("none.jpg", question=LONG)]
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*found nothing at .*none\.jpg.*add media=false"):
        check(folder, rows)
    assert check(folder, rows, "media=false")["benches"]["pope"]["found"] == {}
    (folder / "benches" / "pope" / "random2.jpg").unlink()
    with pytest.raises(DataError, match=r"coco_pope_random\.json:3.*found nothing at .*random2\.jpg"):
        check(folder, rows)


def test_arguments_of_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"set data\.benches=FOLDER"):
        check_benches({"bench": "pope", "data": {"train": "x.jsonl"}})
    with pytest.raises(ConfigError, match=r"found none; set data\.train=FILE"):
        check_benches({"bench": "pope", "data": {"benches": str(folder / "benches")}})
    picture(99).save(folder / "train" / "other.png")
    (folder / "train" / "rows.jsonl").write_text(json.dumps(row("other.png")))
    train = f"data.train={folder / 'train' / 'rows.jsonl'}"
    assert cli.main(["check", "bench=pope", train, f"data.benches={folder / 'benches'}"]) == 0
    assert "looks alike" in capsys.readouterr().out
    assert cli.main(["check", "bench=pope", train, f"data.benches={folder / 'benches'}", "data.trian=x"]) == 1
    assert "did you mean data.train" in capsys.readouterr().err
