"""Row formats: prompt, replies, truth and meta of each, and errors that name file and row."""

import base64
import json

import numpy as np
import pytest
from dataset_rows import ASSISTANT, PROMPT, USER, png, roles_and_values, write_rows

from mmpost.data.media import modalities
from mmpost.data.media.modalities import Modality
from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import DataError


def open_row(folder, row, **options):
    rows = open_dataset(write_rows(folder, row), **options)
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, ASSISTANT]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"conversation": [{"human": "Why?", "assistant": "So."}]},
        {"instruction": "Why?", "input": "", "output": "So."},
        {"instruction": "Why?", "output": "So.", "history": []},
        {"query": "Why?", "response": "So."},
        {"prompt": "Why?", "completion": "So."},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"messages": [USER, ASSISTANT], "images": []},
        {"messages": [USER, ASSISTANT], "images": None, "system": None, "rejected": None},
    ],
)
def test_all_supervised_formats_parse_to_the_same_sample(folder, row):
    sample = open_row(folder, row)
    assert sample.uid == "data.jsonl:1"
    assert roles_and_values(sample.prompt) == PROMPT
    (reply,) = sample.replies
    assert roles_and_values(reply.parts) == [("assistant", "So.")]
    assert (reply.text, reply.origin, dict(reply.columns), reply.token_ids) == ("So.", "data", {}, None)
    assert sample.truth == "So."
    assert dict(sample.meta) == {}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": "Be."}, USER, ASSISTANT]},
        {"system": "Be.", "messages": [USER, ASSISTANT]},
        {"system": "Other.", "messages": [{"role": "system", "content": "Be."}, USER, ASSISTANT]},
        {"system": "Be.", "query": "Why?", "response": "So."},
        {"system": "Be.", "instruction": "Why?", "output": "So."},
        {"system": "Be.", "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
    ],
)
def test_system_turns_come_first(folder, row):
    assert roles_and_values(open_row(folder, row).prompt) == [("system", "Be."), *PROMPT]


def test_alpaca_joins_instruction_and_input_after_the_history(folder):
    row = {"instruction": "Translate.", "input": "Hund", "output": "dog", "history": [["Hi", "Hello"]]}
    sample = open_row(folder, row, loss="last")
    assert roles_and_values(sample.prompt) == [("user", "Hi"), ("assistant", "Hello"), ("user", "Translate.\nHund")]
    assert [s.truth for s in open_dataset(folder / "data.jsonl")] == ["Hello", "dog"]


def test_ms_swift_multimodal_rows(folder):
    """The standard data format of the ms-swift documentation."""
    sound = str(folder / "x.wav")
    samples = open_dataset(
        write_rows(
            folder,
            {"messages": [USER, ASSISTANT]},
            {
                "messages": [
                    {"role": "system", "content": "Help."},
                    {"role": "user", "content": "<image><image>What is the difference?"},
                    {"role": "assistant", "content": "A kitten and a puppy."},
                ],
                "images": ["a.png", "b.png"],
            },
            {
                "messages": [{"role": "user", "content": "<image>Is it <video>?"}, ASSISTANT],
                "images": ["a.png"],
                "videos": ["x.mp4"],
            },
            {
                "messages": [{"role": "user", "content": "<audio>What did it say?"}, ASSISTANT],
                "audios": [str(folder / "x.wav")],
            },
            {"messages": [{"role": "user", "content": "<image>How many?"}], "images": ["c.png"], "solution": "3"},
            {"query": "<image>Read.", "response": "Text.", "images": ["b.png"], "history": None},
            {"messages": [{"role": "assistant", "content": "<image>is a puppy"}], "images": ["a.png"]},
        )
    )
    assert len(samples) == 7
    assert roles_and_values(samples[1].prompt) == [
        ("system", "Help."),
        ("user", 10),
        ("user", 11),
        ("user", "What is the difference?"),
    ]
    assert [p.modality for p in samples[2].prompt] == ["image", "text", "video", "text"]
    assert samples[3].prompt[0].value.name == sound
    assert (samples[4].replies, samples[4].truth) == ((), "3")
    assert roles_and_values(samples[5].prompt) == [("user", 11), ("user", "Read.")]
    assert (samples[6].prompt, roles_and_values(samples[6].replies[0].parts)) == (
        (),
        [("assistant", 10), ("assistant", "is a puppy")],
    )


def test_ms_swift_object_names_are_filled_in_and_boxes_refused(folder):
    row = {
        "messages": [
            {"role": "user", "content": "<image>Find the <ref-object> and <ref-object>"},
            {"role": "assistant", "content": "A <ref-object>."},
        ],
        "images": ["a.png"],
        "objects": {"ref": ["cat", "dog", "cow"], "bbox": [[1, 2, 3, 4]]},
    }
    sample = open_row(folder, row)
    assert sample.prompt[1].value == "Find the cat and dog"
    assert sample.replies[0].text == "A cow."
    assert sample.meta["objects"]["bbox"] == [[1, 2, 3, 4]]
    row["messages"][1]["content"] = "<bbox>"
    with pytest.raises(DataError, match=r"data\.jsonl:1: .*<bbox>"):
        open_row(folder, row)


def test_llama_factory_and_llava_rows(folder):
    rows = [
        {
            "messages": [
                {"content": "<image>Who are they?", "role": "user"},
                {"content": "Kane and Goretzka.", "role": "assistant"},
            ],
            "images": ["a.png"],
        },
        {
            "id": "000000033471",
            "image": "b.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat colour is the bus?"},
                {"from": "gpt", "value": "White and red."},
            ],
        },
        {"instruction": "Describe.", "input": "", "output": "A bus.", "images": ["c.png"]},
        {
            "image": ["a.png", "c.png"],
            "conversations": [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "1"}],
        },
    ]
    (folder / "demo.json").write_text(json.dumps(rows))
    samples = open_dataset(folder / "demo.json")
    assert [s.uid for s in samples] == ["demo.json:1", "000000033471", "demo.json:3", "demo.json:4"]
    assert roles_and_values(samples[0].prompt) == [("user", 10), ("user", "Who are they?")]
    assert roles_and_values(samples[1].prompt) == [("user", 11), ("user", "\nWhat colour is the bus?")]
    assert roles_and_values(samples[2].prompt) == [("user", 12), ("user", "Describe.")]
    assert roles_and_values(samples[3].prompt) == [("user", 10), ("user", 12), ("user", "Which?")]


@pytest.mark.parametrize(
    "content_part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "url": "file:a.png"},
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
        {"type": "image_url", "image_url": "a.png"},
        {"image": "a.png"},
        {"type": "image", "base64": base64.b64encode(png(10)).decode()},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png(10)).decode()}},
        {"type": "input_image", "input_image": {"data": base64.b64encode(png(10)).decode(), "format": "png"}},
        {"type": "image", "image": "a.png", "text": None},
    ],
)
def test_media_in_structured_content(folder, content_part):
    content_part = {
        k: v.replace("file:", f"file://{folder}/") if isinstance(v, str) else v for k, v in content_part.items()
    }
    row = {
        "messages": [{"role": "user", "content": [content_part, {"type": "text", "text": "What?"}, " Say."]}, ASSISTANT]
    }
    assert roles_and_values(open_row(folder, row).prompt) == [("user", 10), ("user", "What?"), ("user", " Say.")]


def test_placeholders_in_structured_content_take_media_from_the_columns(folder):
    content = [
        {"type": "image"},
        {"type": "text", "text": "or"},
        {"type": "image", "image": "c.png"},
        {"type": "image"},
    ]
    row = {"messages": [{"role": "user", "content": content}], "images": ["a.png", "b.png"]}
    assert roles_and_values(open_row(folder, row).prompt) == [("user", 10), ("user", "or"), ("user", 12), ("user", 11)]


def test_media_without_placeholders_go_before_the_first_user_turn(folder):
    turns = [{"role": "system", "content": "Be."}, USER, ASSISTANT, {"role": "user", "content": "And?"}]
    sample = open_row(folder, {"messages": turns, "images": ["a.png", "b.png"]})
    assert roles_and_values(sample.prompt)[:4] == [("system", "Be."), ("user", 10), ("user", 11), ("user", "Why?")]


def test_placeholders_without_media_are_text(folder):
    row = {"messages": [{"role": "user", "content": "What does <image> mean in HTML, <video>?"}, ASSISTANT]}
    assert roles_and_values(open_row(folder, row).prompt) == [("user", "What does <image> mean in HTML, <video>?")]


def test_each_turn_of_the_assistant_is_a_sample(folder):
    turns = [
        {"role": "user", "content": "<image>One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two<image>?"},
        {"role": "assistant", "content": "2"},
    ]
    rows = [
        {"messages": turns, "images": ["a.png", "b.png"], "solution": "II", "note": 5},
        {"id": 7, "messages": [*turns[:1], ASSISTANT], "images": ["a.png"]},
        {"messages": [USER, ASSISTANT, USER]},
    ]
    path = write_rows(folder, *rows)
    samples = open_dataset(path)
    assert [s.uid for s in samples] == ["data.jsonl:1#1", "data.jsonl:1#2", "7", "data.jsonl:3"]
    assert roles_and_values(samples[0].prompt) == [("user", 10), ("user", "One?")]
    assert roles_and_values(samples[1].prompt) == [
        ("user", 10),
        ("user", "One?"),
        ("assistant", "1"),
        ("user", "Two"),
        ("user", 11),
        ("user", "?"),
    ]
    assert [s.replies[0].text for s in samples[:3]] == ["1", "2", "So."]
    assert [s.truth for s in samples] == ["1", "II", "So.", None]
    assert [dict(s.meta) for s in samples[:2]] == [{"note": 5}] * 2
    assert roles_and_values(samples[3].prompt) == [*PROMPT, ("assistant", "So."), *PROMPT]
    assert samples[3].replies == ()
    last = open_dataset(path, loss="last")
    assert [s.uid for s in last] == ["data.jsonl:1", "7", "data.jsonl:3"]
    assert last[0] == type(last[0])(**{**vars(samples[1]), "uid": "data.jsonl:1"})
    assert samples[-1] == samples[3]
    assert samples[1:3] == [samples[1], samples[2]]
    for index in (4, -5):
        with pytest.raises(IndexError):
            samples[index]


def test_turns_with_loss_false_are_not_trained_on(folder):
    turns = [USER, {**ASSISTANT, "loss": False}, USER, {**ASSISTANT, "content": "Two.", "loss": 1.0}]
    sample = open_row(folder, {"messages": turns})
    assert (sample.replies[0].text, len(sample.prompt)) == ("Two.", 3)
    for value in (False, "no"):
        with pytest.raises(DataError, match=r"data\.jsonl:1: .*loss"):
            open_row(folder, {"messages": [USER, {**ASSISTANT, "loss": value}]})


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT], "rejected_response": "No."},
        {"messages": [USER, ASSISTANT], "rejected_response": ["No."]},
        {"messages": [USER, ASSISTANT], "rejected_messages": [USER, {"role": "assistant", "content": "No."}]},
        {"messages": [USER], "chosen": ASSISTANT, "rejected": {"role": "assistant", "content": "No."}},
        {"messages": [USER], "chosen": "So.", "rejected": "No."},
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "No."}]},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No."}]},
        {"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."},
        {"query": "Why?", "response": "So.", "rejected_response": "No."},
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "So."},
            "rejected": {"from": "gpt", "value": "No."},
        },
    ],
)
def test_all_preference_formats_parse_to_the_same_sample(folder, row):
    sample = open_row(folder, row)
    assert roles_and_values(sample.prompt) == PROMPT
    assert [(r.text, dict(r.columns), r.origin) for r in sample.replies] == [
        ("So.", {"label": 1.0}, "data"),
        ("No.", {"label": -1.0}, "data"),
    ]
    assert {p.role for r in sample.replies for p in r.parts} == {"assistant"}
    assert sample.truth == "So."


def test_preference_rows_keep_images_and_history_in_the_prompt(folder):
    turns = [{"role": "user", "content": "<image>Hi"}, ASSISTANT, USER, ASSISTANT]
    sample = open_row(folder, {"messages": turns, "images": ["a.png"], "rejected_response": "No.", "solution": "S"})
    assert roles_and_values(sample.prompt) == [("user", 10), ("user", "Hi"), ("assistant", "So."), *PROMPT]
    assert ([r.text for r in sample.replies], sample.truth) == (["So.", "No."], "S")
    rejected_turns = [*turns[:-1], {"role": "assistant", "content": "No."}]
    row = {"messages": turns, "images": ["a.png"], "rejected_messages": rejected_turns, "rejected_images": ["a.png"]}
    from_messages = open_row(folder, row)
    assert (from_messages.prompt, from_messages.replies, dict(from_messages.meta)) == (
        sample.prompt,
        sample.replies,
        {},
    )
    with pytest.raises(DataError, match="same images"):
        open_row(folder, {**row, "rejected_images": ["b.png"]})


@pytest.mark.parametrize(
    ("key", "value", "label"), [("label", True, 1.0), ("label", False, -1.0), ("kto_tag", False, -1.0)]
)
def test_rows_with_a_binary_label(folder, key, value, label):
    sample = open_row(folder, {"messages": [USER, ASSISTANT, USER, ASSISTANT], key: value})
    assert (len(sample.prompt), dict(sample.replies[0].columns)) == (3, {"label": label})
    assert sample.truth == ("So." if value else None)
    assert dict(sample.meta) == {}


def test_classes_and_other_keys_are_meta(folder):
    sample = open_row(
        folder, {"uid": "x", "messages": [USER], "label": 2, "channel": "a", "choices": ["1", "2"], "empty": None}
    )
    assert dict(sample.meta) == {"label": 2, "channel": "a", "choices": ["1", "2"]}
    assert (sample.uid, sample.truth) == ("x", None)


@pytest.mark.parametrize("key", ["solution", "answer", "truth"])
def test_reinforcement_rows(folder, key):
    boxes = {"boxes": [[1, 2, 3, 4]]}
    for question_fields in (
        {"problem": "Where?"},
        {"question": "Where?"},
        {"messages": [{"role": "user", "content": "Where?"}]},
    ):
        sample = open_row(folder, {**question_fields, "image": "a.png", key: boxes})
        assert roles_and_values(sample.prompt) == [("user", 10), ("user", "Where?")]
        assert (sample.truth, sample.replies) == (boxes, ())


def test_repeated_ids_give_different_uids(folder):
    row = {"id": "same", "messages": [USER, ASSISTANT]}
    samples = open_dataset(write_rows(folder, row, {**row, "id": "other"}, row, row))
    assert [s.uid for s in samples] == ["same", "other", "same@3", "same@4"]


def test_a_new_modality_works_in_rows(folder, monkeypatch):
    monkeypatch.setattr(modalities, "_registry", dict(modalities._registry))
    modalities.register_modality(Modality("spectrum", np.load, lambda _: {}))
    np.save(folder / "s.npy", np.arange(3.0))
    for row in (
        {"query": "Star: <spectrum>?", "spectrum": "s.npy"},
        {"query": "Star: <spectrum>?", "spectrums": ["s.npy"]},
        {"query": "Star: <spectrum>?", "spectrum": [0.0, 1.0, 2.0]},
        {"messages": [{"role": "user", "content": ["Star: ", {"type": "spectrum", "path": "s.npy"}, "?"]}]},
    ):
        sample = open_row(folder, row)
        assert [p.modality for p in sample.prompt] == ["text", "spectrum", "text"]
        assert sample.prompt[1].value.open().tolist() == [0.0, 1.0, 2.0]
