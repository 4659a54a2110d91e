"""Rewards of answers in beats per minute."""

import mmpost as mp


def near(sample: mp.Sample, reply: mp.Reply) -> float:
    """1 for the right number, linearly less for another, 0 from a distance of 20 and without a number."""
    digits = "".join(c for c in reply.text if c.isdigit())
    return max(0.0, 1 - abs(int(digits[:4]) - sample.truth) / 20) if digits else 0.0
