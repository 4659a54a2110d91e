"""Models that also speak (Qwen2.5-Omni): published folders hold the part that writes among others."""

from pathlib import Path

import torch
import transformers as hf

from mmpost.config.settings import ModelSettings
from mmpost.models.loading import load
from tests.models.families import FAMILIES


def test_the_part_that_writes_is_loaded_from_a_folder_of_the_whole_model(tmp_path: Path) -> None:
    writer, processor = FAMILIES["qwen2_5_omni"].make()
    whole = hf.Qwen2_5OmniForConditionalGeneration(
        hf.Qwen2_5OmniConfig(thinker_config=writer.config.to_dict(), enable_audio_output=False)
    )
    whole.thinker.load_state_dict(writer.state_dict())
    whole.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    module, _ = load(str(tmp_path), ModelSettings(name=str(tmp_path)))
    assert type(module) is type(writer)
    loaded, wanted = module.state_dict(), writer.state_dict()
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
