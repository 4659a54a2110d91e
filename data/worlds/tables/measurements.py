"""The numeric data sets that scikit-learn ships, with short names for their features, and their rows by split.

Splits share no row: rows are divided in the order of a hash of the data set's name and the row's number. A hash alone
would leave a split without rows of the smallest set, which has 20.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from mmpost.types import Split

MAX_CHARACTERS = 4
"""The longest value or name."""

SHARES: dict[str, tuple[float, float]] = {"train": (0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1)}
"""Which part of a data set's rows belongs to a split, when they are sorted by hash."""


class Feature(NamedTuple):
    """A column of a data set."""

    column: int
    name: str
    """At most four letters."""
    group: str
    """Features of the same group stand side by side; empty for a feature without one."""


class Measurements(NamedTuple):
    """A data set; of each value, the text that a table shows."""

    features: tuple[Feature, ...]
    texts: dict[str, tuple[str, ...]]
    """For each feature's name, the value of each row with as many decimals as fit for the whole column, at most two."""
    classes: tuple[str, ...]
    """The class of each row; empty if the data set has none."""
    class_name: str
    """What the classes are."""


class _Recipe(NamedTuple):
    """How a data set is loaded, and its short names."""

    loader: str
    groups: dict[str, dict[int, str]]
    class_name: str = ""
    classes: tuple[str, ...] = ()


_RECIPES = {
    "iris": _Recipe("load_iris", {"Sep": {0: "SL", 1: "SW"}, "Pet": {2: "PL", 3: "PW"}}, "Sp", ("Set", "Ver", "Vir")),
    "wine": _Recipe(
        "load_wine",
        {
            "": {0: "Alc", 1: "Mal", 2: "Ash", 3: "Alk", 4: "Mag", 12: "Prol"},
            "Poly": {5: "Phe", 6: "Fla", 7: "Non", 8: "PAC"},
            "Opt": {9: "Col", 10: "Hue", 11: "OD"},
        },
        "Cv",
        ("W1", "W2", "W3"),
    ),
    "breast cancer": _Recipe(
        "load_breast_cancer",
        {
            "Mean": {0: "Rad", 1: "Tex", 2: "Per", 3: "Area", 4: "Smo", 5: "Com", 6: "Conc", 8: "Sym"},
            "Wrst": {20: "WRad", 21: "WTex", 22: "WPer", 23: "WAr", 25: "WCom", 28: "WSym"},
        },
        "Dx",
        ("Mal", "Ben"),
    ),
    "diabetes": _Recipe(
        "load_diabetes",
        {
            "Body": {0: "Age", 2: "BMI", 3: "BP"},
            "Ser": {4: "TC", 5: "LDL", 6: "HDL", 7: "TCH", 8: "LTG", 9: "Glu"},
        },
    ),
    "linnerud": _Recipe(
        "load_linnerud", {"Exer": {0: "Chin", 1: "Sit", 2: "Jump"}, "Phys": {3: "Wgt", 4: "Wst", 5: "Pul"}}
    ),
}

NAMES = tuple(_RECIPES)
"""The data sets."""


@cache
def measurements(name: str) -> Measurements:
    """The data set of this name, one of `NAMES`."""
    from sklearn import datasets  # slow to import

    recipe = _RECIPES[name]
    # The scaled values of the diabetes data have no unit that a table would show.
    settings: dict[str, Any] = {"scaled": False} if recipe.loader == "load_diabetes" else {}
    loaded: Any = getattr(datasets, recipe.loader)(**settings)
    values = np.asarray(loaded.data, float)
    if not recipe.classes and np.ndim(loaded.target) == 2:
        values = np.concatenate([values, loaded.target], axis=1)  # measured as well
    features = tuple(
        Feature(column, short, group) for group, names in recipe.groups.items() for column, short in names.items()
    )
    texts = {feature.name: _texts(values[:, feature.column]) for feature in features}
    classes = tuple(recipe.classes[number] for number in loaded.target) if recipe.classes else ()
    return Measurements(features, texts, classes, recipe.class_name)


def _texts(values: np.ndarray) -> tuple[str, ...]:
    """The values with as many decimals as they have, fewer if one of them would be too long."""
    decimals = next((d for d in range(2) if np.allclose(values, values.round(d), rtol=0, atol=1e-9)), 2)
    while max(len(f"{value:.{decimals}f}") for value in values) > MAX_CHARACTERS:
        decimals -= 1
    return tuple(f"{value:.{decimals}f}" for value in values)


@cache
def rows(name: str, split: Split) -> tuple[int, ...]:
    """The numbers of the rows of a data set that belong to a split, in ascending order."""
    count = len(next(iter(measurements(name).texts.values())))
    order = sorted(range(count), key=lambda row: hashlib.sha256(f"{name} {row}".encode()).digest())
    first, last = (round(share * count) for share in SHARES[split])
    return tuple(sorted(order[first:last]))
