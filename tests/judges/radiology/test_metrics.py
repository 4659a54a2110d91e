"""Report metrics: published values, empty reports, and F1 of labels."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpost.core.means import mean_scores
from mmpost.errors import ConfigError, DataError
from mmpost.judges.bertscore import BertScore
from mmpost.judges.radiology.metrics import (
    CLASS_PREFIX,
    REPORT_SCORES,
    ReportScores,
    bleu,
    corpus_bleu,
    finding_f1,
    repetition,
    rouge_l,
    words,
)
from mmpost.judges.radiology.vocabulary import CHEXBERT_CLASSES
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext


def test_rouge_l_of_the_published_example() -> None:
    assert rouge_l("no pleural effusion is seen", "no effusion seen") == 0.75
    assert rouge_l("No effusion.", "no EFFUSION") == 1.0
    assert rouge_l("a b", "c d") == rouge_l("", "a") == rouge_l("a", "") == rouge_l("", "") == 0.0


def test_rouge_l_against_all_subsequences() -> None:
    rng = random.Random(0)
    for _ in range(50):
        a, b = ([rng.choice("abc") for _ in range(rng.randint(1, 7))] for _ in range(2))
        subsequences = [[w for i, w in enumerate(a) if bits >> i & 1] for bits in range(1 << len(a))]
        longest = max(len(s) for s in subsequences if _is_subsequence(s, b))
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(2 * longest / (len(a) + len(b)))


def _is_subsequence(short: list[str], long: list[str]) -> bool:
    remaining = iter(long)
    return all(word in remaining for word in short)


def test_bleu_equals_sacrebleu() -> None:
    text = "there is a small right pleural effusion ."
    assert bleu(text, text.upper()) == pytest.approx(1.0)
    assert 0 < bleu(text, "there is a large left pleural effusion .") < 0.6
    assert bleu(text, "") == 0.0
    assert corpus_bleu([text, text], [text, text]) == pytest.approx(1.0)


def test_length_and_repetition() -> None:
    assert words("a b\nc") == 3
    assert repetition("a b c d") == repetition("a b") == repetition("") == 0.0
    assert repetition("a b c d a b c d a b c d") == pytest.approx(5 / 9)
    assert repetition("a a a a", n=1) == 0.75


def sample(truth: object, *texts: str) -> Sample:
    return Sample("s", (), tuple(Reply((Part("text", text),)) for text in texts), truth)


def test_every_metric_is_scored_and_summarized() -> None:
    truth = "Small right pleural effusion. Cardiomegaly."
    (scored,) = ReportScores()([sample(truth, truth, "Cardiomegaly. Pneumonia. Nodule.")], FakeContext())
    assert {name: scored.replies[0].scores[name] for name in REPORT_SCORES} == pytest.approx(
        {"rouge_l": 1.0, "bleu": 1.0, "words": 5.0, "rel_verbosity": 1.0, "repetition": 0.0}
    )
    codes = {name: [r.scores[f"{CLASS_PREFIX}{name}"] for r in scored.replies] for name in CHEXBERT_CLASSES}
    assert codes["Pleural Effusion"] == [3.0, 2.0]
    assert codes["Cardiomegaly"] == [3.0, 3.0]
    assert codes["Pneumonia"] == [0.0, 1.0]
    # Effusion 1 of 2 (F1 2/3), cardiomegaly 2 of 2 (1), pneumonia and lesion 0 of 1 (0): 3 correct, 3 wrong.
    assert finding_f1([scored]) == pytest.approx(
        {"micro_f1_14": 6 / 9, "macro_f1_14": (2 / 3 + 1) / 4, "micro_f1_5": 6 / 7, "macro_f1_5": (2 / 3 + 1) / 2}
    )
    assert mean_scores([scored], REPORT_SCORES)["words"] == 4.0
    assert finding_f1([]) == mean_scores([], REPORT_SCORES) == finding_f1([sample("x", "y")]) == {}


@pytest.mark.parametrize("truth", [3, "", " [x] "])
def test_a_truth_that_is_not_a_report_is_refused(truth: object) -> None:
    with pytest.raises(DataError, match="wanted a re"):
        ReportScores()([sample(truth, "a")], FakeContext())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import (
        BertConfig,
        BertModel,
        BertTokenizerFast,  # pyright: ignore[reportAttributeAccessIssue]
    )

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    BertModel(BertConfig(vocab_size=11, **sizes)).save_pretrained(folder)
    return str(folder)


def test_bertscore_matches_its_definition(encoder: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()

    def vectors(text: str) -> torch.Tensor:
        with torch.no_grad():
            rows = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[1][0][1:-1]
        return rows / rows.norm(dim=-1, keepdim=True)

    reference, candidate = vectors("a b c d e"), vectors("c a f")
    precision = sum(max(float(x @ y) for y in reference) for x in candidate) / 3
    recall = sum(max(float(x @ y) for y in candidate) for x in reference) / 5
    judge = BertScore(model=encoder, layer=1, device="cpu", batch=3)
    (verdict, identical, empty) = judge.judge([("a b c d e", "C a f"), ("a b", "a b"), ("a", "")])
    assert verdict.counts == pytest.approx({"precision": precision, "recall": recall}, rel=1e-5)
    assert verdict.score == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-5)
    assert identical.score == pytest.approx(1.0)
    assert empty.score == 0.0


def test_bertscore_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)wanted a transformers encoder, found .* name a folder"):
        BertScore(model=str(tmp_path)).judge([("a", "b")])
