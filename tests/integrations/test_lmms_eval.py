"""Models of mmpost in lmms-eval reply as in mmpost; `scripts/check-lmms-eval` makes the environment and runs this."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from pyarrow import Table, parquet

from mmpost.data.media.media import media
from mmpost.rollout.local import LocalRollout
from mmpost.runs.session import load_model
from mmpost.training.context import TrainingContext
from mmpost.types import Part, Sample, Sampling

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed (scripts/check-lmms-eval)")

QUESTIONS = 16
TOKENS = 12
TASK = """
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {file}}}}}
task: mmpost_sixteen
test_split: test
output_type: generate_until
doc_to_visual: !function sixteen.pictures
doc_to_text: !function sixteen.question
doc_to_messages: !function sixteen.messages
doc_to_target: answer
generation_kwargs: {{max_new_tokens: {tokens}, until: ["~"]}}
process_results: !function sixteen.scores
metric_list: [{{metric: exact, aggregation: mean, higher_is_better: true}}]
"""
FUNCTIONS = """
import io
from PIL import Image

def pictures(doc):
    return [Image.open(io.BytesIO(doc["image"]["bytes"])).convert("RGB")]

def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def messages(doc, lmms_eval_specific_kwargs=None):
    content = [{"type": "image", "url": pictures(doc)[0]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]

def scores(doc, results):
    return {"exact": float(results[0] == doc["answer"])}
"""


def picture(number: int) -> Image.Image:
    image = Image.new("RGB", (112, 84), (number * 16, 255 - number * 16, 99))
    ImageDraw.Draw(image).ellipse((number, number, 60, 60), fill="white")
    return image


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rows = tmp_path_factory.mktemp("task"), []
    for number in range(QUESTIONS):
        file = io.BytesIO()
        picture(number).save(file, "PNG")
        image = {"bytes": file.getvalue(), "path": f"{number}.png"}
        rows.append({"image": image, "question": f"What is in picture {number}?", "answer": "yes"})
    parquet.write_table(Table.from_pylist(rows), folder / "rows.parquet")
    (folder / "sixteen.yaml").write_text(TASK.format(file=folder / "rows.parquet", tokens=TOKENS))
    (folder / "sixteen.py").write_text(FUNCTIONS)
    return folder


def expected() -> list[str]:
    model = load_model("random-tiny", device="cpu")
    context = TrainingContext(model, LocalRollout(model, 3), 0)
    samples = [
        Sample(str(i), (Part("image", media(picture(i), "image")), Part("text", f"What is in picture {i}?")))
        for i in range(QUESTIONS)
    ]
    answered = context.generate(samples, 1, Sampling(max_tokens=TOKENS, temperature=0))
    return [sample.replies[0].text.partition("~")[0] for sample in answered]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_replies_are_those_of_mmpost(ranks: int, task: Path, tmp_path: Path) -> None:
    launch = ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [
        *(sys.executable, *launch, "-m", "lmms_eval", "--model", "mmpost", "--model_args", "pretrained=random-tiny"),
        *("--include_path", str(task), "--tasks", "mmpost_sixteen", "--reasoning_tags", "none", "--device", "cpu"),
        *("--batch_size", "8", "--log_samples", "--output_path", str(tmp_path)),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = tmp_path.rglob("*samples_mmpost_sixteen*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    replies = {row["doc_id"]: row["filtered_resps"] for row in rows}
    assert [replies[i] for i in range(QUESTIONS)] == expected()
    assert len(set(replies.values())) > 1
