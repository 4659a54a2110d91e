"""Extraction of findings from reports: negation, uncertainty, location, severity."""

from __future__ import annotations

import pytest

from mmpost.judges.radiology.findings import (
    Finding,
    chexbert_labels,
    extract_findings,
    format_findings,
    split_sentences,
)
from mmpost.judges.radiology.vocabulary import CHEXBERT_CLASSES, build_vocabulary, chest_vocabulary, tokenize

ALL_NORMAL = (
    "The heart is normal in size. The mediastinum is unremarkable. The lungs are clear. There is no pleural effusion, "
    "pneumothorax or focal consolidation. Bony structures are intact."
)


def positive_findings(text: str) -> set[str]:
    return {name for name, finding in extract_findings(text).items() if finding.positive}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ALL_NORMAL, set()),
        ("Mild cardiomegaly.", {"Cardiomegaly"}),
        ("The heart is not enlarged.", set()),
        ("The heart is mildly enlarged.", {"Cardiomegaly"}),
        ("Heart size is at the upper limits of normal.", set()),
        ("No effusion, pneumothorax or consolidation.", set()),
        ("No effusion. Pneumothorax on the right.", {"Pneumothorax"}),
        ("There is no effusion and there is a small pneumothorax.", {"Pneumothorax"}),
        ("No pneumothorax is seen, the heart is enlarged.", {"Cardiomegaly"}),
        ("No pneumothorax, stable cardiomegaly.", {"Cardiomegaly"}),
        ("No consolidation but a small left effusion.", {"Pleural Effusion"}),
        ("Effusion without pneumothorax.", {"Pleural Effusion"}),
        ("Negative for pneumothorax, pleural effusion, or focal airspace disease.", set()),
        ("Pneumothorax or effusion is not identified.", set()),
        ("The left effusion has resolved.", set()),
        ("Interval resolution of the right pneumothorax.", set()),
        ("The chest tube has been removed.", set()),
        ("No change in the right pleural effusion.", {"Pleural Effusion"}),
        ("No significant interval change in bibasilar atelectasis.", {"Atelectasis"}),
        ("Unchanged left basilar atelectasis.", {"Atelectasis"}),
        ("Pneumonia cannot be excluded.", {"Pneumonia"}),
        ("Opacity which may represent pneumonia or atelectasis.", {"Lung Opacity", "Pneumonia", "Atelectasis"}),
        ("CT is recommended to exclude a mass.", set()),
        ("If there is concern for fracture, rib films may help.", set()),
        ("Pulmonary edema.", {"Edema"}),
        ("Pericardial effusion.", {"Pericardial Effusion"}),
        ("The lungs are clear of focal airspace disease, pneumothorax, or pleural effusion.", set()),
        ("Blunting of the left costophrenic angle.", {"Pleural Effusion"}),
        ("Costophrenic angles are sharp.", set()),
        ("A right internal jugular catheter ends in the superior vena cava.", {"Support Devices"}),
        ("No lines or tubes.", set()),
        ("Cardiomediastinal silhouette is within normal limits.", set()),
        ("Mediastinal widening.", {"Enlarged Cardiomediastinum"}),
        ("Old healed right rib fractures.", {"Fracture"}),
        ("No displaced rib fracture.", set()),
        ("Biapical pleural thickening.", {"Pleural Other"}),
        ("Please note that nondisplaced fractures may not be demonstrated.", set()),
        ("", set()),
        ("The patient came by train.", set()),
        ("NO PNEUMOTHORAX. LARGE EFFUSION", {"Pleural Effusion"}),
    ],
)
def test_findings_are_detected(text: str, expected: set[str]) -> None:
    assert positive_findings(text) == expected


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        (
            "Small right pleural effusion.",
            "Pleural Effusion",
            Finding("present", frozenset({"right"}), levels=frozenset({1})),
        ),
        (
            "Small to moderate bilateral pleural effusions.",
            "Pleural Effusion",
            Finding("present", frozenset({"left", "right"}), levels=frozenset({1, 2})),
        ),
        (
            "Large right pneumothorax and small left pleural effusion.",
            "Pleural Effusion",
            Finding("present", frozenset({"left"}), levels=frozenset({1})),
        ),
        (
            "Large right pneumothorax and small left pleural effusion.",
            "Pneumothorax",
            Finding("present", frozenset({"right"}), levels=frozenset({3})),
        ),
        (
            "Opacity in the left lower lobe, possibly atelectasis.",
            "Atelectasis",
            Finding("uncertain", frozenset({"left"}), frozenset({"lower"})),
        ),
        ("Probable pneumonia.", "Pneumonia", Finding("uncertain")),
        ("Infiltrate versus atelectasis.", "Atelectasis", Finding("uncertain")),
        ("Infiltrate versus atelectasis.", "Lung Opacity", Finding("uncertain")),
        ("Borderline heart size.", "Cardiomegaly", Finding("uncertain", levels=frozenset({1}))),
        ("Severe cardiomegaly.", "Cardiomegaly", Finding("present", levels=frozenset({3}))),
        ("No definite pleural effusion.", "Pleural Effusion", Finding("absent")),
        (
            "No effusion. Small effusion on the left.",
            "Pleural Effusion",
            Finding("present", frozenset({"left"}), levels=frozenset({1})),
        ),
        ("Effusions are possible.", "Pleural Effusion", Finding("uncertain")),
    ],
)
def test_attributes_of_findings_are_detected(text: str, name: str, expected: Finding) -> None:
    assert extract_findings(text)[name] == expected


def test_labels_follow_chexbert() -> None:
    assert len(CHEXBERT_CLASSES) == 14
    assert set(CHEXBERT_CLASSES) - {"No Finding"} <= set(chest_vocabulary().findings)
    assert chexbert_labels(ALL_NORMAL)["No Finding"] == "present"
    assert chexbert_labels("No effusion. Right chest tube.")["No Finding"] == "present"
    assert "No Finding" not in chexbert_labels("Small effusion.")
    assert "No Finding" not in chexbert_labels("Possible pneumonia.")
    assert chexbert_labels("No acute cardiopulmonary abnormality.") == {"No Finding": "present"}
    assert chexbert_labels("") == chexbert_labels("He came by train.") == {}
    assert chexbert_labels("No effusion.") == {"Pleural Effusion": "absent", "No Finding": "present"}
    assert "Hernia" not in chexbert_labels("Hiatal hernia.")


def test_sentences_and_words() -> None:
    assert split_sentences("A 1.5 cm nodule.. No effusion; clear.\n\nEnd") == [
        "A 1.5 cm nodule",
        "No effusion",
        "clear.",
        "End",
    ]
    assert tokenize("Opacities, 1.5-cm masses/diaphragms: THIS atelectasis") == [
        *("opacity", ",", "1.5", "cm", "mass", "diaphragm", ":", "this", "atelectasis")
    ]


def test_the_order_of_sentences_does_not_matter() -> None:
    text = "Small right effusion. Mild cardiomegaly. No pneumothorax."
    assert extract_findings(" ".join(reversed(split_sentences(text)))) == extract_findings(text)


def test_findings_in_one_line() -> None:
    findings = extract_findings("Small right effusion. No pneumothorax. Possible pneumonia.")
    assert format_findings(findings) == "Pleural Effusion right level 1; no Pneumothorax; ? Pneumonia"


def test_the_longest_phrase_wins() -> None:
    data = {"classes": {"A": {"names": ["big a"]}, "B": {"names": ["a"]}}, "more": {}, "anything": []}
    vocabulary = build_vocabulary({**data, "cues": {}, "sides": {}, "zones": {}, "levels": {}})
    assert [sense.target for sense in vocabulary.longest_match(["big", "a"], 0)[1]] == ["A"]
    assert vocabulary.longest_match(["big", "b"], 0) == (0, ())
