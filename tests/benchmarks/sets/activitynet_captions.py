"""ActivityNet Captions: a few videos in the form of its official file; all else is that of Charades-STA."""

import json

from tests.benchmarks.sets.charades_sta import (
    REPOSITORY as REPOSITORY,
    gold as gold,
    scored_officially as scored_officially,
)

VIDEOS = {
    "v_uqiMw7tQ1Cc": {
        "duration": 55.15,
        "timestamps": [[0.28, 55.15], [13.79, 54.32]],
        "sentences": ["A weight lifting tutorial is given.", " The coach helps the guy in red. "],
    },
    "v_bXdq2zI1Ms0": {"duration": 73.1, "timestamps": [[0, 10.23]], "sentences": ["Three men are standing."]},
}
FILES = {"val_2.json": json.dumps(VIDEOS)}
