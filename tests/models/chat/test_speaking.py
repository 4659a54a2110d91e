"""Qwen2.5-Omni: released checkpoints contain the thinker among the parts that speak."""

from pathlib import Path

import torch
import transformers as hf

from mmpost.config.settings import ModelSettings
from mmpost.models.loading import load
from tests.models.families import FAMILIES


def test_the_thinker_is_loaded_from_a_full_omni_checkpoint(tmp_path: Path) -> None:
    thinker, processor = FAMILIES["qwen2_5_omni"].make()
    omni = hf.Qwen2_5OmniForConditionalGeneration(
        hf.Qwen2_5OmniConfig(thinker_config=thinker.config.to_dict(), enable_audio_output=False)
    )
    omni.thinker.load_state_dict(thinker.state_dict())
    omni.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    module, _ = load(str(tmp_path), ModelSettings(name=str(tmp_path)))
    assert type(module) is type(thinker)
    loaded, expected = module.state_dict(), thinker.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
