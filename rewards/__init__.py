"""mmpost.rewards"""

if __name__ != "mmpost.rewards":
    raise ModuleNotFoundError(
        f"import mmpost.rewards, not {__name__}: the folder is a part of the package mmpost", name=__name__
    )
