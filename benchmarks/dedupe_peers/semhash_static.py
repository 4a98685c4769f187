"""semhash at its usual 0.9, with the static model in the folder argv[3] (see dedupe_static_model.py)."""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
from measuring import measure
from model2vec import StaticModel
from semhash import SemHash
from tokenizers import Tokenizer


def _model(folder: str) -> StaticModel:
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return StaticModel(np.load(f"{folder}/vectors.npy"), tokenizer, normalize=True)


def dedupe(rows: pd.DataFrame) -> list[bool]:
    records = [
        {"text": text, "number": str(number)} for number, text in enumerate(rows["input"].tolist())
    ]
    hashed = SemHash.from_records(records, columns=["text"], model=MODEL)
    kept = {int(one["number"]) for one in hashed.self_deduplicate(threshold=0.9).selected}
    return [number in kept for number in range(len(rows))]


if __name__ == "__main__":
    MODEL = _model(sys.argv[3])
    measure(dedupe, {name: version(name) for name in ("semhash", "model2vec")})
