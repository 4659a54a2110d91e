"""mmpost.tasks"""

if __name__ != "mmpost.tasks":
    raise ModuleNotFoundError(
        f"import mmpost.tasks, not {__name__}: the folder is a part of the package mmpost", name=__name__
    )
