"""Fetch official files of benchmarks from the hub that they are released on."""

from __future__ import annotations

import sys
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, HubFiles
from mmpost.errors import ConfigError, DataError

HUB = "hub"
"""Of `data.benches`: the files come from the hub."""


def fetch(bench: Benchmark, name: str) -> Path:
    """The folder with the official files, in the hub's cache on this machine; what is missing there is fetched.

    Size and license are printed first. The revision is that of `Benchmark.hub`; where it is open, it is the newest at
    the first fetch, and stays. Raises ConfigError for a benchmark that is on no hub in its official form, DataError
    without a connection.
    """
    hub = bench.hub
    if hub is None:
        raise ConfigError(
            f"bench={name}: wanted a benchmark that is on the hub in its official form, found one of {bench.source}; "
            "get its files there, and set data.benches=FOLDER"
        )
    names = [f"{hub.folder}/{file}" if hub.folder else file for file in bench.files]
    folder = _cached(hub, names)
    return (_download(hub, names, name, bench.license) if folder is None else folder) / hub.folder


def _cached(hub: HubFiles, names: list[str]) -> Path | None:
    """The cached snapshot, if it has all files."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(hub.repo, n, revision=hub.revision or None, repo_type="dataset") for n in names]
    if not all(isinstance(path, str) for path in paths):
        return None
    return Path(str(paths[0])).parents[names[0].count("/")]


def _download(hub: HubFiles, names: list[str], bench: str, license: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of the HTTP library in it, which has changed before
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        info = HfApi().dataset_info(hub.repo, revision=hub.revision or None, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        missing = [file for file in names if file not in sizes]
        if missing:
            raise DataError(
                f"bench={bench}: wanted {missing[0]!r} in {hub.repo} of the hub, found no such file; get the official "
                "files, and set data.benches=FOLDER"
            )
        megabytes = sum(sizes[file] for file in names) / 1e6
        stated = (info.card_data.get("license") if info.card_data else None) or license
        print(
            f"mmpost: bench={bench}: {hub.repo} of the hub at {str(info.sha)[:12]}: {len(names)} files, "
            f"{megabytes:,.1f} MB, license: {stated}",
            file=sys.stderr,
        )
        paths = [hf_hub_download(hub.repo, n, revision=hub.revision or None, repo_type="dataset") for n in names]
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as e:
        raise DataError(
            f"bench={bench}: wanted {hub.repo} of the hub, found no way to it ({e}); set data.benches=FOLDER"
        ) from e
    return Path(paths[0]).parents[names[0].count("/")]
