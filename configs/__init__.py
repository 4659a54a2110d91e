"""mmpost.configs"""

if __name__ != "mmpost.configs":
    raise ModuleNotFoundError(
        f"import mmpost.configs, not {__name__}: the folder is a part of the package mmpost", name=__name__
    )
