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
    wanted = f"model={name}: wanted a multimodal chat model, found"
    try:
        validate_repo_id(folder)
    except HFValidationError:
        raise ConfigError(
            f"{wanted} no folder or run at {folder}, which cannot be a hub id (OWNER/NAME) either; correct the path"
        ) from None
    if any(isinstance(try_to_load_from_cache(folder, file), str) for file in CONFIGS):
        return
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"{wanted} no folder, run or base of this name and no cached hub model, and HF_HUB_OFFLINE is set; correct "
            f"the name, or download it first: hf download {folder}"
        )
    _look_up(folder, wanted)


def _look_up(repository: str, wanted: str) -> None:
    for attempt in range(ATTEMPTS):
        try:
            get_hf_file_metadata(hf_hub_url(repository, CONFIGS[0]), timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return
        except EntryNotFoundError:
            return  # it exists, and may hold adapters; loading says what is missing
        except GatedRepoError as e:
            raise ConfigError(
                f"{wanted} {repository}, a gated hub model, without access to it; ask for access at "
                f"{constants.ENDPOINT}/{repository}, then log in: hf auth login"
            ) from e
        except RepositoryNotFoundError as e:
            raise ConfigError(
                f"{wanted} no folder, run or base of this name and no model {repository} on {constants.ENDPOINT}; "
                "correct the name, or, if it is private, log in: hf auth login"
            ) from e
        except HfHubHTTPError:
            return  # the hub answers, and may do better when the files are loaded
        except Exception as e:
            # Of the library for HTTP, which differs between releases of huggingface_hub: no connection.
            if attempt + 1 == ATTEMPTS:
                raise ConfigError(
                    f"{wanted} no folder, run or base of this name and no cached hub model, and {constants.ENDPOINT} "
                    f"cannot be reached ({type(e).__name__}: {str(e)[:200]}); correct the name, or the network"
                ) from e
            time.sleep(PAUSE_SECONDS)
