"""Upload a training set to the Hugging Face Hub.

The key is whatever `huggingface_hub` finds by itself (``HF_TOKEN``, or what ``hf auth login`` stored); it
is never asked for, kept or shown here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.exceptions import CurateError


def check_name(name: str) -> None:
    """See that a name is one that the Hub takes.

    Raises:
        CurateError: If it is not OWNER/NAME.
    """
    if not re.fullmatch(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", name):
        raise CurateError(
            f"--push-to-hub {name!r}: write OWNER/NAME, such as jane/reviews, of letters, digits, dots, "
            "dashes and underscores"
        )


def push(tables: Mapping[str, Any], card: Path, name: str, *, private: bool, force: bool) -> str:
    """Upload tables as splits of a dataset, and then the card; return the dataset's address.

    Args:
        tables: Arrow tables by split.
        card: The README.md to be put beside them.
        name: ``owner/name``.
        private: Whether only its owner may see it.
        force: Whether a dataset that is there already is to be replaced.

    Raises:
        CurateError: If it is there already, is public where a private one is wanted, or the Hub does
            not answer or refuses.
    """
    import datasets
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        there = api.repo_exists(name, repo_type="dataset")
        open_to_all = there and not api.repo_info(name, repo_type="dataset").private
    except Exception as error:
        raise _refused(name, card, error) from None
    if there and not force:
        raise CurateError(
            f"the Hub has a dataset {name} already: choose another name, or replace it with --force; "
            f"what was written lies in {card.parent}"
        )
    if open_to_all and private:
        raise CurateError(
            f"the dataset {name} is public, and a private one is wanted: make it private on the Hub, or say "
            f"--public; what was written lies in {card.parent}"
        )
    splits = {split: datasets.Dataset(table) for split, table in tables.items()}
    spoken = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity_error()  # it tells of processes that nobody asked for
    try:
        datasets.DatasetDict(splits).push_to_hub(
            name, private=private, commit_message="Upload a curated training set"
        )
        api.upload_file(
            path_or_fileobj=card.read_bytes(), path_in_repo="README.md", repo_id=name,
            repo_type="dataset", commit_message="Upload the dataset card",
        )  # fmt: skip
    except Exception as error:
        raise _refused(name, card, error) from None
    finally:
        datasets.logging.set_verbosity(spoken)
    return f"{api.endpoint}/datasets/{name}"


def _refused(name: str, card: Path, error: Exception) -> CurateError:
    # Any of several libraries may raise here; the cause is not chained, for its text may quote headers.
    import huggingface_hub

    said = " ".join(str(error).split())
    token = huggingface_hub.get_token()
    if token:
        said = said.replace(token, "…")
    said = re.sub(r"hf_\w{8,}", "…", said)
    return CurateError(
        f"{name} was not uploaded ({type(error).__name__}: {said[:300]}). What was written lies in "
        f"{card.parent}; see that the Hub can be reached and `hf auth login` was done, and give the same "
        "command again, with --force if a part is there already"
    )
