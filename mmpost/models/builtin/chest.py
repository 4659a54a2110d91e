"""The tiny Qwen2.5-VL with the vocabulary of chest X-rays: reports take about 50 tokens, and questions 10."""

from __future__ import annotations

from pathlib import Path

from mmpost.models.builtin.qwen_vl import tiny_processor, tiny_tokenizer, write_tiny

WORDS = """
A AP An Atelectasis Bibasilar Focal Heart Is Large Left Lungs Mild Moderate No PA Right Severe Small The There acute
airspace at atelectasis base bases basilar bones bilateral bilaterally bony both breath cancer cardiac cardiomegaly
catheter central chest clear consolidation cough disease dizziness edema effusion effusions endotracheal enlarged
evidence failure fall fever film findings focal fracture good heart intact intubated large limits line loss lung lungs
mediastinum mid mild mildly moderate moderately nodule normal opacity or pacemaker pain placement pleural pneumothorax
position positive preoperative pulmonary rib seen severe severely shortness side silhouette size leg swelling surgery
test trauma tube venous view weight within abnormality cardiopulmonary TB Pulmonary Pleural Pneumothorax Rib
"""

PIECES = (
    "Write the findings section of the report on this chest film.",
    'Given the indication "',
    '", write the findings section of the report on this chest film.',
    "There is no",
    "There is a",
    "There is",
    "There are",
    "No evidence of",
    "is within normal limits",
    "is seen on the",
    "is seen at the",
    "is seen in the",
    "is in place",
    "pleural effusion",
    "pleural effusions",
    "pulmonary edema",
    "The heart is",
    "The cardiac silhouette is",
    "normal in size",
    "The lungs are",
    "Which view is this?",
    "Is there",
    "Is there a",
    "On which side is the",
    "How severe is the",
    "Options:",
    "Options: yes, no.",
    "Options: PA, AP.",
    "Options: right, left, bilateral.",
    "Options: small, moderate, large.",
    "Options: mild, moderate, severe.",
)
"""The fixed phrases of the questions and reports in data/worlds/chest, one token each."""


GREY = 0.39
"""Mean brightness of a rendered X-ray, which becomes 0 in normalized pixels.

With black as 0 the common brightness hides differences from a model this small: it told sides apart at chance after 700
steps, and at 97 % after 300 with this.
"""


def write_tiny_cxr(folder: Path | str, seed: int = 0) -> None:
    """Write the model with random weights, tokenizer and processor into `folder`; needs no network."""
    tokenizer = tiny_tokenizer(WORDS, PIECES)
    write_tiny(folder, seed, tokenizer)
    processor = tiny_processor(tokenizer)
    for subprocessor in (processor.image_processor, processor.video_processor):
        subprocessor.image_mean = [GREY] * 3
    processor.save_pretrained(folder)
