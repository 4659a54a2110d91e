"""CheXbert classes from the MeSH terms that human indexers gave Open-i reports, to evaluate a report labeler."""

from __future__ import annotations

from collections.abc import Iterable

from mmpost.judges.radiology.vocabulary import CHEXBERT_CLASSES

_TERMS = {
    **dict.fromkeys(("Cardiomegaly",), "Cardiomegaly"),
    **dict.fromkeys(("Opacity", "Infiltrate", "Airspace Disease", "Pulmonary Fibrosis", "Fibrosis"), "Lung Opacity"),
    "Lung Diseases, Interstitial": "Lung Opacity",
    **dict.fromkeys(("Nodule", "Mass", "Cavitation"), "Lung Lesion"),
    **dict.fromkeys(("Pulmonary Edema", "Pulmonary Congestion", "Heart Failure"), "Edema"),
    "Consolidation": "Consolidation",
    **dict.fromkeys(("Pneumonia", "Tuberculosis"), "Pneumonia"),
    "Pulmonary Atelectasis": "Atelectasis",
    **dict.fromkeys(("Pneumothorax", "Hydropneumothorax", "Hemopneumothorax"), "Pneumothorax"),
    **dict.fromkeys(("Pleural Effusion", "Hemothorax"), "Pleural Effusion"),
    "Pleura": "Pleural Other",
    "Fractures, Bone": "Fracture",
    **dict.fromkeys(("Catheters, Indwelling", "Implanted Medical Device", "Medical Device"), "Support Devices"),
    **dict.fromkeys(
        ("Surgical Instruments", "Tube, Inserted", "Stents", "Sutures", "Spinal Fusion"), "Support Devices"
    ),
}
"""Terms that imply a class regardless of their qualifiers."""

_QUALIFIED: tuple[tuple[tuple[str, ...], set[str], str], ...] = (
    (
        ("Cardiac Shadow", "Heart", "Heart Atria", "Heart Ventricles"),
        {"enlarged", "borderline", "prominent"},
        "Cardiomegaly",
    ),
    (("Mediastinum",), {"enlarged", "prominent"}, "Enlarged Cardiomediastinum"),
    (("Cicatrix",), {"lung"}, "Lung Opacity"),
    (("Density",), {"lung", "retrocardiac"}, "Lung Opacity"),
    (("Markings",), {"interstitial", "lung"}, "Lung Opacity"),
    (("Density", "Opacity"), {"round"}, "Lung Lesion"),
    (("Hydropneumothorax", "Hemopneumothorax"), set(), "Pleural Effusion"),
    (("Costophrenic Angle", "Sulcus"), {"blunted"}, "Pleural Effusion"),
    (("Thickening", "Cicatrix", "Calcinosis", "Density"), {"pleura"}, "Pleural Other"),
)
"""(terms, qualifiers, class): a term implies the class with any of the qualifiers; an empty set accepts all."""

UNINDEXED = "No Indexing"
"""The term that marks a report as not indexed."""


def mesh_classes(terms: Iterable[str]) -> set[str]:
    """The CheXbert classes that the terms imply; No Finding if there are none besides Support Devices.

    Bronchovascular crowding ("Markings/bronchovascular") is not an opacity, and a calcified granuloma is not a lesion,
    as in CheXpert.
    """
    classes: set[str] = set()
    for term in terms:
        name, *qualifiers = (part.strip() for part in term.split("/"))
        if name in _TERMS:
            classes.add(_TERMS[name])
        for names, accepted, label in _QUALIFIED:
            if name in names and (not accepted or accepted & set(qualifiers)):
                classes.add(label)
    assert classes <= set(CHEXBERT_CLASSES)
    return classes if classes - {"Support Devices"} else {*classes, "No Finding"}
