"""CheXbert's classes from the MeSH terms of Open-i reports: what human indexers found, to measure a labeller by."""

from __future__ import annotations

from collections.abc import Iterable

from mmpost.judges.radiology.vocabulary import CHEXBERT

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
"""Terms that mean a class whatever their qualifiers."""

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
"""Terms that mean a class with one of these qualifiers; with no qualifiers named, always."""

UNINDEXED = "No Indexing"
"""The term of a report that nobody indexed."""


def classes(terms: Iterable[str]) -> set[str]:
    """The classes that the terms name, of the fourteen; No Finding where they name none but Support Devices.

    Crowded vessels ("Markings/bronchovascular") are no opacity; a calcified granuloma is no lesion, as in CheXpert.
    """
    found: set[str] = set()
    for term in terms:
        name, *qualifiers = (part.strip() for part in term.split("/"))
        if name in _TERMS:
            found.add(_TERMS[name])
        for names, wanted, label in _QUALIFIED:
            if name in names and (not wanted or wanted & set(qualifiers)):
                found.add(label)
    assert found <= set(CHEXBERT)
    return found if found - {"Support Devices"} else {*found, "No Finding"}
