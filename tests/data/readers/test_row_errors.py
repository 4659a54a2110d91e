"""Invalid rows: the error names file and row, what was wanted and what was found."""

import pytest
from dataset_rows import ASSISTANT, USER, write_rows

from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import DataError


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"messages": [{"role": "user", "content": "<image><image>?"}], "images": ["a.png"]},
            r"<image>.*is 1; found 2",
        ),
        (
            {"messages": [{"role": "user", "content": "<image>?"}], "images": ["a.png", "b.png"]},
            r"<image>.*is 2; found 1",
        ),
        (
            {"messages": [{"role": "user", "content": "<image>?"}], "images": ["a.png"], "audios": ["x.wav"]},
            r"<audio>.*1; found 0",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, r"<image>.*is 0; found 1"),
        ({"messages": [USER], "image": "a.png", "images": ["a.png"]}, r"'image' and 'images'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"role among .*user.*found 'tool'"),
        ({"messages": [{"role": "user"}]}, r"'content'.*found role"),
        ({"messages": [{"content": "x"}]}, r"\{role, content\}"),
        ({"messages": [{"role": "user", "content": 5}]}, r"text or a list of parts; found int"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, r"image, video, audio.*smell"),
        ({"messages": [{"role": "user", "content": [5]}]}, r"found 5"),
        ({"messages": "Why?"}, r"list of turns, found str"),
        ({"messages": []}, r"list of turns, found list"),
        ({"conversations": [{"from": "human", "text": "x"}]}, r"'value'.*found from, text"),
        ({"text": "x", "note": 1}, r"known formats: messages, conversations.*keys text, note"),
        ({}, r"known formats.*keys none"),
        ([1, 2], r"mapping.*found list"),
        ({"query": 5}, r"list of turns, found int"),
        ({"system": 5, "query": "x"}, r"text in 'system', found int"),
        ({"query": "x", "history": ["a"]}, r"pairs of question and reply"),
        ({"prompt": "Why?", "chosen": "So."}, r'"rejected" beside "chosen"'),
        ({"prompt": "Why?", "rejected": "So."}, r'"chosen", or a last turn'),
        ({"messages": [USER, ASSISTANT], "chosen": "So.", "rejected": "No."}, r"ends with the user"),
        ({"chosen": [USER, ASSISTANT], "rejected": [ASSISTANT, USER, ASSISTANT]}, r"one prompt.*found two"),
        ({"chosen": [USER], "rejected": [USER]}, r"end with the assistant"),
        ({"messages": [ASSISTANT], "images": ["a.png"]}, r"turn of the user to put the media in front"),
        ({"messages": [USER], "images": ["http://host/a.png"]}, r"http://host/a\.png"),
        ({"messages": [USER], "videos": [["a.png", "b.png"]]}, r"list of files"),
    ],
)
def test_errors_name_file_and_row_and_say_what_was_wanted(folder, row, message):
    samples = open_dataset(write_rows(folder, {"query": "fine"}, row))
    assert len(samples) == 2
    assert samples[0].uid == "data.jsonl:1"
    with pytest.raises(DataError, match=r"^data\.jsonl:2: .*" + message):
        samples[1]
