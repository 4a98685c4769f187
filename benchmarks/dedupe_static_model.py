"""A static embedding model for semhash, made from a small encoder the way model2vec distils one.

Every token of the vocabulary goes through the encoder alone; the vectors are turned onto their 256 principal
axes and weighted down where a token is frequent (by Zipf's law from its place in the vocabulary).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer


def make(encoder: Path, folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)
    count = model.config.vocab_size
    found = []
    with torch.inference_mode():
        for start in range(0, count, 1_024):
            tokens = torch.arange(start, min(start + 1_024, count))[:, None]
            ends = torch.tensor([[tokenizer.cls_token_id, tokenizer.sep_token_id]])
            ends = ends.expand(len(tokens), 2)
            ids = torch.cat([ends[:, :1], tokens, ends[:, 1:]], dim=1)
            found.append(model(input_ids=ids).last_hidden_state.mean(dim=1))
    vectors = torch.cat(found).numpy()
    vectors -= vectors.mean(axis=0)
    vectors = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:256].T
    share = 1 / np.arange(2, count + 2)
    share /= share.sum()
    vectors *= (1e-4 / (1e-4 + share))[:, None]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", vectors.astype(np.float32))
    shutil.copyfile(encoder / "tokenizer.json", folder / "tokenizer.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path, help="a sentence-transformers folder")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    make(chosen.encoder, chosen.folder)
