"""Judges n pairs by a server until it is killed: `python -m tests.judges.killed_judge URL CACHE N`."""

from __future__ import annotations

import sys

from mmpost.judges.chat_judge import ChatJudge
from mmpost.judges.grade import Grade
from mmpost.judges.server import Server

CONCURRENCY = 4


def judge(url: str, cache: str) -> ChatJudge:
    server = Server(url=url, model="m", cache=cache, concurrency=CONCURRENCY, backoff=0.01)
    return ChatJudge(prompt=Grade(prompt="{candidate}"), backend=server)


def pairs(n: int) -> list[tuple[str, str]]:
    return [("", f"question {i}") for i in range(n)]


if __name__ == "__main__":
    judge(sys.argv[1], sys.argv[2]).judge(pairs(int(sys.argv[3])))
