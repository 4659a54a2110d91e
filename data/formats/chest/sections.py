"""Splits free-text radiology reports into sections: findings, impression, indication."""

from __future__ import annotations

import re

_TITLE = re.compile(r"(?m)^[ \t]*([A-Z][A-Z ,/&()-]{2,60}?)[ \t]*:")
_NAMES = {
    "findings": ("FINDINGS", "FINDING", "FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION", "CHEST FINDINGS"),
    "impression": ("IMPRESSION", "IMPRESSIONS", "CONCLUSION", "CONCLUSIONS", "OPINION"),
    "indication": (
        *("INDICATION", "INDICATIONS", "CLINICAL INDICATION", "HISTORY", "CLINICAL HISTORY", "CLINICAL INFORMATION"),
        *("REASON FOR EXAM", "REASON FOR EXAMINATION", "REASON FOR STUDY"),
    ),
}
PARTS = """
LUNGS LUNG AIRWAYS AIRWAY PLEURA PLEURAL SPACES SPACE HEART CARDIAC CARDIOMEDIASTINAL SILHOUETTE MEDIASTINUM HILA
PULMONARY VASCULATURE VESSELS BONES OSSEOUS STRUCTURES RIBS SPINE SOFT TISSUES DIAPHRAGM UPPER ABDOMEN SUPPORT DEVICES
LINES TUBES AND OTHER
"""
"""Words of subheadings inside the findings, such as LUNGS AND PLEURA: ..."""
_SECTION = {title: name for name, titles in _NAMES.items() for title in titles}


def sections(report: str) -> dict[str, str]:
    """The sections by name, with collapsed white space; missing or empty ones are left out.

    A title is in capitals, at the start of a line and before a colon. Text before the first title belongs to no
    section, and names of organs ("LUNGS: clear") are subheadings within one. If a section occurs several times (a wet
    read, an addendum), the last non-empty one counts.
    """
    organs = set(PARTS.split())
    titles = [t for t in _TITLE.finditer(report) if not set(re.findall(r"[A-Z]+", t[1])) <= organs]
    result: dict[str, str] = {}
    for number, title in enumerate(titles):
        end = titles[number + 1].start() if number + 1 < len(titles) else len(report)
        name, text = _SECTION.get(" ".join(title[1].split())), " ".join(report[title.end() : end].split())
        if name is not None and text:
            result[name] = text
    return result


PROMPT = "Write the findings section of the report on this chest film."
INDICATED = 'Given the indication "{indication}", write the findings section of the report on this chest film.'


def prompt_text(indication: str, prompt: str = PROMPT, indicated: str = INDICATED) -> str:
    """The instruction that follows the X-ray: `indicated` with the indication if there is one, else `prompt`."""
    return indicated.replace("{indication}", indication) if indication else prompt
