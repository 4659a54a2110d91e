"""One look-up of a hub id before anything else: without network, its libraries retry every file for minutes."""

from __future__ import annotations

import time
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import HFValidationError, validate_repo_id

from mmpost.errors import ConfigError

CONFIGS = ("config.json", "adapter_config.json")
"""A repository of a model or of adapters has one of them."""
ATTEMPTS = 2
PAUSE_SECONDS = 1.0


def require_available(folder: str, name: str) -> None:
    """Check that `folder`, which model=`name` refers to, is a folder, a cached hub id, or one that the hub gives out.

    Raises ConfigError, after at most two requests. Says nothing about what is in it.
    """
    if Path(folder).is_dir():
        return
    try:
        validate_repo_id(folder)
    except HFValidationError:
        raise ConfigError(
            f"model={name}: found no folder or run at {folder}, and this cannot be a hub id (OWNER/NAME); correct the "
            "path"
        ) from None
    if any(isinstance(try_to_load_from_cache(folder, file), str) for file in CONFIGS):
        return
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"model={name}: found no folder, run or base of this name, and no cached hub model, while HF_HUB_OFFLINE "
            f"forbids to look it up; correct the name, or download it first: hf download {folder}"
        )
    _look_up(folder, name)


def _look_up(repository: str, name: str) -> None:
    for attempt in range(ATTEMPTS):
        try:
            get_hf_file_metadata(hf_hub_url(repository, CONFIGS[0]), timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return
        except EntryNotFoundError:
            return  # it exists, and may hold adapters; loading says what is missing
        except GatedRepoError as e:
            raise ConfigError(
                f"model={name}: the hub gives {repository} only to users whom its authors let in; ask for access at "
                f"{constants.ENDPOINT}/{repository}, then log in: hf auth login"
            ) from e
        except RepositoryNotFoundError as e:
            raise ConfigError(
                f"model={name}: found no folder, run or base of this name, and no model {repository} on "
                f"{constants.ENDPOINT}; correct the name, or, if it is private, log in: hf auth login"
            ) from e
        except HfHubHTTPError:
            return  # the hub answers, and may do better when the files are loaded
        except Exception as e:
            # Of the library for HTTP, which differs between releases of huggingface_hub: no connection.
            if attempt + 1 == ATTEMPTS:
                raise ConfigError(
                    f"model={name}: found no folder, run or base of this name, and no cached hub model, and cannot "
                    f"reach {constants.ENDPOINT} ({type(e).__name__}: {str(e)[:200]}); correct the name, or the network"
                ) from e
            time.sleep(PAUSE_SECONDS)
