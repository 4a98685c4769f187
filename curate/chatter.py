"""Keeps libraries' own chatter out of the command line's output."""

from __future__ import annotations

import logging
import os


def quiet_libraries() -> None:
    """Silence progress bars and load messages of the libraries below us, errors excepted.

    Called by the command line before they are imported; a notebook keeps them as they are.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in ("transformers", "sentence_transformers", "huggingface_hub", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
