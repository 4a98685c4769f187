"""The wheel: the four packages and nothing else, and it works where the clone is out of sight."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from small_recipe import review_rows, small_recipe, write_csv, write_recipe
from tiny_student import tiny_folder

REPO = Path(__file__).parents[1]
PACKAGES = {"curate", "labelers", "filters", "student"}

pytestmark = pytest.mark.integration


def checked(command: list[str | Path], **how: object) -> str:
    """Standard output of a command that has to end well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    output: str = done.stdout
    return output


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    if importlib.util.find_spec("hatchling"):
        build = ["build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPO)]
    else:
        build = ["pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(REPO)]
    checked([sys.executable, "-m", *build])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment that holds the wheel and sees this one's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    checked([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    checked([sys.executable, "-m", "pip", "--python", str(python), *install])
    (site,) = folder.glob("lib/python*/site-packages")
    # A path added by a .pth file has its own .pth files left alone, so that an editable install of
    # the clone stays out of sight.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def outside() -> dict[str, str]:
    """Surroundings in which nothing points at the clone."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_", "COVERAGE"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    (about,) = tops - PACKAGES
    assert about.startswith("curate_distill-")
    assert about.endswith(".dist-info")
    held = {name for name in names if name.split("/")[0] in PACKAGES}
    tracked = {
        path.relative_to(REPO).as_posix()
        for package in PACKAGES
        for path in (REPO / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == tracked
    assert {"curate/recipe_template.yaml", *(f"{p}/py.typed" for p in PACKAGES)} <= held
    assert f"{about}/licenses/LICENSE" in names


def test_the_command_answers_from_outside_the_clone(environment: Path, tmp_path: Path) -> None:
    how = {"cwd": tmp_path, "env": outside()}
    assert checked([environment / "curate", "--help"], **how).startswith("Usage: curate ")
    where = (
        "import curate, filters, labelers, student\n"
        "for package in (curate, filters, labelers, student): print(package.__file__)"
    )
    for path in checked([environment / "python", "-c", where], **how).split():
        assert Path(path).is_relative_to(environment.parent)
        assert not Path(path).is_relative_to(REPO)


def test_a_small_recipe_runs_from_outside_the_clone(environment: Path, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "tiny-t5")
    write_recipe(tmp_path, small_recipe())
    how = {"cwd": tmp_path, "env": outside()}
    said = checked([environment / "curate", "run", "recipe.yaml", "--quiet"], **how).splitlines()
    assert said[0].startswith("system ")
    assert [line.split("  ")[0] for line in said[2:6]] == [
        "majority class", "TF-IDF + logistic regression", "teacher", "student",
    ]  # fmt: skip
    assert said[-2:] == ["student: runs/small/student", "report:  runs/small/report.html"]
    facts = json.loads((tmp_path / "runs" / "small" / "run.json").read_text(encoding="utf-8"))
    assert facts["curate_version"] == metadata.version("curate-distill")
    assert "<style>" in (tmp_path / "runs" / "small" / "report.html").read_text(encoding="utf-8")
    write_csv(tmp_path / "new.csv", [{"text": row["text"]} for row in review_rows()[:3]])
    predict = ["predict", "--model", "runs/small/student", "--file", "new.csv"]
    answers = checked([environment / "curate", *predict], **how).splitlines()
    assert len(answers) == 3
    assert all(line.split()[0] in ("positive", "negative") for line in answers)
