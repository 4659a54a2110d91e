"""Datasets: media, signals, sources, readers of user data, formats of published datasets, synthetic worlds."""

if __name__ != "mmpost.data":
    raise ModuleNotFoundError(
        f"import mmpost.data, not {__name__}: the folder is a part of the package mmpost", name=__name__
    )
