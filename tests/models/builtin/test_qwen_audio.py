"""The tiny audio model: loads like a released one, counts placeholders, and matches each clip to its prompt."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor, Qwen2AudioProcessor, WhisperFeatureExtractor

from mmpost.config.settings import ModelSettings
from mmpost.data.media.media import media
from mmpost.errors import DataError
from mmpost.models.builtin.qwen_audio import RATE, SECONDS, tiny_audio_tokenizer, write_tiny_audio
from mmpost.models.chat.model import ChatModel
from mmpost.models.chat.prompts import PromptEncoder
from mmpost.models.loading import load
from mmpost.types import Part, Sample

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-audio"
    write_tiny_audio(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    return AutoModelForMultimodalLM.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def clip(seconds: float) -> np.ndarray:
    return RNG.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def inputs(processor: Any, clips: list[np.ndarray], questions: list[str], padding_side: str = "left") -> Any:
    """Processor inputs: one row per question, each with one clip."""
    turns = [[{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": text}]}] for text in questions]
    texts = [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    return processor(
        text=texts,
        audio=clips,
        sampling_rate=RATE,
        return_tensors="pt",
        text_kwargs={"padding": True, "padding_side": padding_side},
    )


def test_loads_like_a_published_checkpoint(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = loaded
    assert type(model).__name__ == "Qwen2AudioForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2AudioProcessor"
    assert sum(p.numel() for p in model.parameters()) < 0.9e6
    assert float(model.model.audio_tower.layers[0].fc1.weight.detach().std()) == pytest.approx(0.08, abs=0.005)
    batch = inputs(processor, [clip(0.5)], ["which word?"])
    assert processor.tokenizer.decode(batch["input_ids"][0]).replace("<|AUDIO|>", "") == (
        "<|im_start|>user\n<|audio_bos|><|audio_eos|>which word?<|im_end|>\n<|im_start|>assistant\n"
    )
    with torch.no_grad():
        logits = model(**batch).logits
    assert logits.shape == (*batch["input_ids"].shape, len(processor.tokenizer))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    reloaded = AutoModelForMultimodalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(reloaded(**batch).logits, logits)
    assert AutoProcessor.from_pretrained(tmp_path).chat_template == processor.chat_template


@pytest.mark.parametrize(("seconds", "tokens"), [(0.2, 5), (0.5, 12), (1.0, 25), (1.37, 34), (2.0, 50), (3.0, 50)])
def test_a_clip_has_as_many_placeholders_as_features(loaded: tuple[Any, Any], seconds: float, tokens: int) -> None:
    """25 tokens per second; the processor truncates clips beyond the window of the model."""
    model, processor = loaded
    batch = inputs(processor, [clip(seconds)], ["?"])
    assert batch["input_features"].shape == (1, 40, 100 * SECONDS)
    assert int((batch["input_ids"] == model.config.audio_token_id).sum()) == tokens
    lengths = model.model.audio_tower._get_feat_extract_output_lengths(batch["feature_attention_mask"].sum(-1))
    assert lengths[1].tolist() == [tokens]
    with torch.no_grad():
        assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1], (
            "the legacy merge of features lengthens rows"
        )


def test_clips_of_a_padded_batch_give_the_same_logits_as_alone(loaded: tuple[Any, Any]) -> None:
    """In float64, so that any difference is a bug and not rounding."""
    model, processor = deepcopy(loaded[0]).double(), loaded[1]
    clips, questions = [clip(0.4), clip(1.6)], ["which sound was it?", "how many?"]
    with torch.no_grad():
        batch = inputs(processor, clips, questions)
        batched = model(**batch).logits
        for row, (single, question) in enumerate(zip(clips, questions, strict=True)):
            alone = model(**inputs(processor, [single], [question])).logits[0]
            assert len(alone) == batch["attention_mask"][row].sum()
            torch.testing.assert_close(batched[row, -len(alone) :], alone, atol=1e-6, rtol=0)
        swapped = inputs(processor, [clips[0], clip(1.6)], questions)
        assert (model(**swapped).logits[0] - batched[0]).abs().max() < 1e-6
        assert (model(**swapped).logits[1, -1] - batched[1, -1]).abs().max() > 1e-2


@pytest.mark.parametrize(("seconds", "tokens"), [(1, 25), (5, 125), (10, 250), (15, 375), (30, 750), (40, 750)])
def test_the_published_numbers_of_placeholders(seconds: int, tokens: int) -> None:
    """The released model has a window of 30 s; its processor truncates longer clips silently."""
    processor = Qwen2AudioProcessor(WhisperFeatureExtractor(return_attention_mask=True), tiny_audio_tokenizer())
    wave = np.zeros(seconds * RATE, np.float32)
    batch = processor(text=["<|AUDIO|>"], audio=[wave], sampling_rate=RATE, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[processor.audio_token_id] * tokens]


def test_a_clip_beyond_the_window_is_refused(loaded: tuple[Any, Any]) -> None:
    prompter = PromptEncoder(None, loaded[1])
    for seconds, tokens in ((2.0, 50), (0.3, 7)):
        sound = media((clip(seconds), RATE), "audio")
        ids = prompter(Sample("s", (Part("audio", sound), Part("text", "which?")))).ids
        assert int((ids == loaded[1].audio_token_id).sum()) == tokens
    for rate, seconds in ((RATE, 2.1), (8000, 5.0)):
        sound = media((np.zeros(round(seconds * rate), np.float32), rate), "audio")
        with pytest.raises(DataError, match=rf"sample 's'.*at most 2 s of sound.*found {seconds} s"):
            prompter(Sample("s", (Part("audio", sound), Part("text", "which?"))))


def test_reply_groups_keep_their_clips(folder: Path) -> None:
    """Two prompts with equal tokens, two replies each: features and masks must be repeated row by row."""
    model = ChatModel(*load(str(folder), ModelSettings(device="cpu")))
    sounds = [media((clip(0.5), RATE), "audio") for _ in range(2)]
    replies = [model.encode_reply(text, "data") for text in ("<answer>beep</answer>", "<answer>hiss</answer>")]
    samples = [
        Sample(str(i), (Part("audio", sound), Part("text", "which?")), tuple(replies)) for i, sound in enumerate(sounds)
    ]

    def logp(batch_samples: list[Sample]) -> torch.Tensor:
        plan = model.plan(batch_samples, ["mask"], "reply")
        with torch.no_grad():
            logps = [model(batch, {"logp"}).logp for batch in plan]
        return torch.cat([values for values in logps if values is not None])

    batched, one_by_one = logp(samples), torch.cat([logp([s]) for s in samples])
    torch.testing.assert_close(batched, one_by_one, atol=2e-5, rtol=0)
    first, second = one_by_one.chunk(2)
    assert (first - second).abs().max() > 1e-3


def test_the_order_of_sounds_matters(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    first, second = clip(0.5), np.sin(np.arange(RATE // 2)).astype(np.float32)
    with torch.no_grad():
        forward, reversed_order = (
            model(**inputs(processor, [np.concatenate(pair)], ["which came first?"])).logits[0, -1]
            for pair in ((first, second), (second, first))
        )
    assert (forward - reversed_order).abs().max() > 1e-2


def test_weights_depend_on_the_seed_and_the_random_state_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tiny_audio(tmp_path / name, seed)
    assert torch.equal(torch.get_rng_state(), before)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_placeholders_are_single_tokens_and_tokenization_is_lossless() -> None:
    tokenizer = tiny_audio_tokenizer()
    for text in ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|im_end|>", " knock", "']", "; answer in <answer>"):
        assert len(tokenizer.encode(text)) == 1
    for text in ("which came first? ['knock', 'tone']; answer in <answer>", "Ünï 日本 007\x00", "<answer>two</answer>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
