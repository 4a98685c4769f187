"""Recipes: what is read, what is overridden, and every finding with file, line, key, value, remedy."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import curate
import filters
from curate.exceptions import RecipeError
from curate.recipe import Recipe, load_recipe, parse_recipe

GOOD = """\
name: reviews
task:
  instruction: Is the review praise or complaint?
  template: "Review: {{ text }}"
  labels: [positive, negative]
  demonstrations:
    - input: "Review: The strap broke on day two."
      rationale: A part that breaks at once is a complaint.
      label: negative
  goal: {accuracy: 0.8}
data: {train: reviews.csv, gold: sentiment, group: review_id}
teacher:
  engine: openai
  model: teacher-1
filters:
  - exact_duplicate
  - near_duplicate: {threshold: 0.8}
student:
  model: flan-t5-small
  epochs: 3
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    """GOOD with texts replaced, each of which stands in it once."""
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return write(folder, text)


def findings(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides=overrides)
    return str(caught.value).replace(str(path), "recipe.yaml").splitlines()


def finding(path: Path, *overrides: str) -> str:
    (found,) = findings(path, *overrides)
    return found


def test_a_good_recipe_is_read_with_its_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.filters == [("exact_duplicate", {}), ("near_duplicate", {"threshold": 0.8})]
    assert recipe.built_filters() == [
        filters.ExactDuplicate(),
        filters.NearDuplicate(threshold=0.8),
    ]
    assert (recipe.student.objective, recipe.student.epochs, recipe.seed) == ("multitask", 3, 0)
    assert recipe.task.task().labels == ("positive", "negative")


def test_a_resolved_recipe_reads_as_itself() -> None:
    recipe = parse_recipe(yaml.safe_load(GOOD))
    again = parse_recipe(recipe.resolved())
    assert again == recipe
    assert again.sha256() == recipe.sha256()
    other = parse_recipe(yaml.safe_load(GOOD) | {"seed": 1})
    assert other.sha256() != recipe.sha256()


def test_the_recipe_that_init_writes_is_good(tmp_path: Path) -> None:
    path = curate.init(tmp_path / "new.yaml")
    recipe = load_recipe(path)
    assert recipe.teacher.engine == "llama.cpp"
    assert {name for name, _ in recipe.filters} <= set(filters.FILTERS)
    assert recipe.filters[-1][0] == "rebalance"


def test_the_recipes_of_this_repository_are_good() -> None:
    paths = sorted(Path(__file__).parent.parent.glob("recipes/*.yaml"))
    assert "demo.yaml" in [path.name for path in paths]
    for path in paths:
        load_recipe(path)


def test_rates_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    for rate in ("3e-4", "3.0e-4", "0.0003", "3E-4"):
        path = changed(tmp_path, ("epochs: 3", f"learning_rate: {rate}"))
        assert load_recipe(path).student.learning_rate == 0.0003
        override = f"student.learning_rate={rate}"
        assert (
            load_recipe(write(tmp_path, GOOD), overrides=[override]).student.learning_rate == 3e-4
        )


# ------------------------------------------------------------------------------- keys and values


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 3", "epoch: 3",
         "recipe.yaml:20: unknown key 'student.epoch' (value 3): did you mean 'epochs'?"),
        ("name: reviews", "nam: reviews\nname: reviews",
         "recipe.yaml:1: unknown key 'nam' (value 'reviews'): did you mean 'name'?"),
        ("      label: negative", "      label: negative\n      labl: x",
         "recipe.yaml:10: unknown key 'task.demonstrations.0.labl' (value 'x'): did you mean 'label'?"),
        ("  model: teacher-1", "  model: teacher-1\n  prices: {prompt: 1, completion: 2, promt: 3}",
         "recipe.yaml:15: unknown key 'teacher.prices.promt' (value 3): did you mean 'prompt'?"),
        ("  model: teacher-1", "  model: teacher-1\n  slots: 4",
         "recipe.yaml:15: unknown key 'teacher.slots' (value 4): known are api, api_key_env, attempts,"),
        ("epochs: 3", "epochs: three", "recipe.yaml:20: student.epochs is 'three': must be a valid integer"),
        ("epochs: 3", "epochs: 0",
         "recipe.yaml:20: student.epochs is 0: must be greater than or equal to 1"),
        ("epochs: 3", "epochs: true", "recipe.yaml:20: student.epochs is True: must be a valid integer"),
        ("epochs: 3", "alpha: 1.5", "recipe.yaml:20: student.alpha is 1.5: must be less than or equal to 1"),
        ("epochs: 3", "objective: multi",
         "recipe.yaml:20: student.objective is 'multi': must be 'multitask', 'label', "
         "'rationale_then_label', 'rationale_as_input', 'soft_label' or 'white_box'"),
        ("[positive, negative]", "[yes, negative]",
         "recipe.yaml:5: task.labels.0 is True: must be a text: write it in quotes"),
        ("[positive, negative]", "positive",
         "recipe.yaml:5: task.labels is 'positive': must be a valid list"),
        ("name: reviews", "name: my reviews",
         "recipe.yaml:1: name is 'my reviews': may hold letters, digits, dots, dashes and underscores"),
        ("name: reviews", "name: ../up", "recipe.yaml:1: name is '../up': may hold"),
        ("{accuracy: 0.8}", "{acuracy: 0.8}",
         "recipe.yaml:10: task.goal: unknown metric 'acuracy': did you mean 'accuracy'?"),
        ("{accuracy: 0.8}", "{accuracy: 80}",
         "recipe.yaml:10: task.goal.accuracy is 80: must be less than or equal to 1"),
        ("  goal: {accuracy: 0.8}", "  metrics: [f1]",
         "recipe.yaml:10: task.metrics.0 is 'f1': must be 'accuracy', 'macro_f1', 'mcc', "),
        ("engine: openai", "engine: opnai",
         "recipe.yaml:13: teacher.engine is 'opnai': did you mean 'openai'?"),
        ("engine: openai", "api: chat", "recipe.yaml:12: teacher.engine is missing: known are llama.cpp, "),
        ("  model: teacher-1\n", "", "recipe.yaml:12: the key 'teacher.model' is missing"),
        ("data: {train: reviews.csv, gold: sentiment, group: review_id}", "data: reviews.csv",
         "recipe.yaml:11: data is 'reviews.csv': must be keys and values"),
        ("- exact_duplicate", "- exact_dupplicate",
         "recipe.yaml:16: filters.0 is 'exact_dupplicate': no filter has this name: did you mean"
         " 'exact_duplicate'?"),
        ("{threshold: 0.8}", "{treshold: 0.8}",
         "recipe.yaml:17: filters.1 is {'near_duplicate': {'treshold': 0.8}}: near_duplicate has no"
         " argument 'treshold': did you mean 'threshold'?"),
        ("{threshold: 0.8}", "{threshold: 80}",
         "recipe.yaml:17: filters.1 is {'near_duplicate': {'threshold': 80}}: near_duplicate: threshold"),
        ("{threshold: 0.8}", "0.8",
         "recipe.yaml:17: filters.1 is {'near_duplicate': 0.8}: the arguments of near_duplicate"),
        ("{threshold: 0.8}", "{reason: mine}",
         "recipe.yaml:17: filters.1 is {'near_duplicate': {'reason': 'mine'}}: near_duplicate has no"),
        ("near_duplicate: {threshold: 0.8}", "exact_duplicate",
         "recipe.yaml:17: filters.1: exact_duplicate is there already: each filter may be there once"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_one_readable_finding(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    assert finding(changed(tmp_path, (old, new))).startswith(expected)


def test_several_findings_come_together(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ("epochs: 3", "epoch: 3"),
        ("name: reviews\n", ""),
        ("{threshold: 0.8}", "{treshold: 0.8}"),
        ("- exact_duplicate", "- exact"),
    )
    found = findings(path)
    assert len(found) == 4
    assert {re.match(r"[\w.]+:?\d*", line).group() for line in found} == {  # type: ignore[union-attr]
        "recipe.yaml:", "recipe.yaml:15", "recipe.yaml:16", "recipe.yaml:19",
    }  # fmt: skip


def test_several_disagreements_come_together_too(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ("label: negative", "label: bad"),
        ("{{ text }}", "{{ text }} {{ sentiment }}"),
        ("  model: teacher-1", "  model: teacher-1\n  rationales: false"),
    )
    found = findings(path)
    assert [line.partition(": ")[0] for line in found] == [
        "recipe.yaml:9", "recipe.yaml:15", "recipe.yaml:4",
    ]  # fmt: skip


# ------------------------------------------------------------------------- sections that must agree


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("label: negative", "label: bad")],
         "recipe.yaml:9: task.demonstrations.0.label is 'bad', which is not one of ['positive', 'negative']"),
        ([("[positive, negative]", "[negative]")], "recipe.yaml:2: task.labels is ['negative']"),
        ([("Is the review praise or complaint?", "' '")], "recipe.yaml:2: task.instruction is empty"),
        ([("{{ text }}", "{{ text }")], "recipe.yaml:2: task.template 'Review: {{ text }' does not parse"),
        ([("  model: teacher-1", "  model: teacher-1\n  rationales: false")],
         "recipe.yaml:15: student.objective is 'multitask', which learns from rationales, and "
         "teacher.rationales is false: set it to true, or student.objective to label"),
        ([("  model: teacher-1", "  model: teacher-1\n  mode: cot"),
          ("      rationale: A part that breaks at once is a complaint.\n", "")],
         "recipe.yaml:7: task.demonstrations.0 has no rationale, and teacher.mode is 'cot', which shows"),
        ([("  labels: [positive, negative]\n", ""), ("{accuracy: 0.8}", "{}")],
         "recipe.yaml:11: teacher.mode is 'score', which needs task.labels or task.choices"),
        ([("  labels: [positive, negative]\n", ""), ("{accuracy: 0.8}", "{macro_f1: 0.8}"),
          ("  model: teacher-1", "  model: teacher-1\n  mode: cot")],
         "recipe.yaml:9: task.goal.macro_f1 needs one label set, task.labels"),
        ([("{{ text }}", "{{ text }} ({{ sentiment }})")],
         "recipe.yaml:4: task.template reads the column 'sentiment', which is data.gold: the teacher and "
         "the student would be shown the answer"),
        ([("  model: flan-t5-small", "  with_gold: true"), (" gold: sentiment,", "")],
         "recipe.yaml:19: student.with_gold is true, and data.gold is not set"),
        ([("  model: flan-t5-small", "  target: gold"), (" gold: sentiment,", "")],
         "recipe.yaml:19: student.target is 'gold', and data.gold is not set"),
        ([("group: review_id", "group: review_id, ignore: [stars, review_id]")],
         "recipe.yaml:11: data.ignore leaves out the column 'review_id', which data.group names"),
        ([("group: review_id", "group: review_id, ignore: [text]")],
         "recipe.yaml:11: data.ignore leaves out the column 'text', which task.template names"),
        ([("engine: openai", "engine: recorded"), ("model: teacher-1", "column: sentiment")],
         "recipe.yaml:14: teacher.column names 'sentiment', which is data.gold: the human labels would "
         "pass for the teacher's"),
        ([("engine: openai", "engine: recorded"), ("model: teacher-1", "column: text")],
         "recipe.yaml:14: teacher.column names 'text', which task.template reads: the student would be "
         "shown the answer"),
        ([("near_duplicate: {threshold: 0.8}", "semantic_duplicate\nembedder: null")],
         "recipe.yaml:17: filters.1: semantic_duplicate needs embeddings, and embedder is null"),
        ([("near_duplicate: {threshold: 0.8}", "rebalance: {by: [label, cluster]}\nembedder: null")],
         "recipe.yaml:17: filters.1: rebalance needs embeddings, and embedder is null"),
    ],
)  # fmt: skip
def test_sections_that_do_not_agree_are_found_before_anything_is_paid(
    changes: list[tuple[str, str]], expected: str, tmp_path: Path
) -> None:
    assert finding(changed(tmp_path, *changes)).startswith(expected)


def test_a_recorded_teacher_has_one_source(tmp_path: Path) -> None:
    for line in ("", "  column: said\n  log: log.jsonl\n"):
        path = changed(
            tmp_path, ("engine: openai", "engine: recorded"), ("  model: teacher-1\n", line)
        )
        assert "give either `column`" in finding(path)


def test_options_per_row_need_options_in_each_demonstration(tmp_path: Path) -> None:
    path = changed(tmp_path, ("labels: [positive, negative]", "choices: options"))
    assert "choices" in finding(path)
    path = changed(
        tmp_path,
        ("labels: [positive, negative]", "choices: options"),
        ("label: negative", "label: bad\n      choices: [good, poor]"),
    )
    assert finding(path).startswith(
        "recipe.yaml:9: task.demonstrations.0.label is 'bad', which is not one of ['good', 'poor']"
    )


# ---------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "key", ["sk-proj-Ab12", "gsk_ab12cd", "AIzaSyB-ab", "0a1b2c3d4e", "my_key"]
)
def test_a_key_pasted_where_its_variable_belongs_is_refused_and_not_shown(
    key: str, tmp_path: Path
) -> None:
    path = changed(tmp_path, ("  model: teacher-1", f"  model: teacher-1\n  api_key_env: {key}"))
    found = finding(path)
    assert found.startswith("recipe.yaml:15: teacher.api_key_env")
    assert "the name of an environment variable in capital letters" in found
    assert key not in found


def test_a_key_under_a_key_of_its_own_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = changed(tmp_path, ("  model: teacher-1", "  model: teacher-1\n  api_key: sk-proj-Ab12"))
    found = finding(path)
    assert "unknown key 'teacher.api_key'" in found
    assert "did you mean 'api_key_env'?" in found
    assert "sk-proj" not in found
    path = changed(tmp_path, ("engine: openai", "api_key: sk-proj-Ab12"))
    assert "sk-proj" not in finding(path)


def test_a_password_in_an_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    url = "https://me:hush@host.example/v1"
    path = changed(tmp_path, ("  model: teacher-1", f"  model: teacher-1\n  base_url: {url}"))
    found = finding(path)
    assert "teacher.base_url" in found
    assert "api_key_env" in found
    assert "hush" not in found


def test_a_key_given_to_set_is_not_shown_either(tmp_path: Path) -> None:
    for key in ("teacher.api_key_env", "teacher.api_key"):
        found = finding(write(tmp_path, GOOD), f"{key}=sk-proj-Ab12")
        assert found.startswith(f"--set '{key}=…': ")
        assert "sk-proj" not in found


def test_a_proper_variable_is_accepted(tmp_path: Path) -> None:
    path = changed(tmp_path, ("  model: teacher-1", "  model: teacher-1\n  api_key_env: MY_KEY_2"))
    assert load_recipe(path).teacher.api_key_env == "MY_KEY_2"  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "seed: 1\nseed: 2\n", "recipe.yaml:22: the key 'seed' is given twice (first on line 21)"),
        (GOOD.replace("  epochs: 3", "  epochs: 3\n  epochs: 4"),
         "recipe.yaml:21: the key 'student.epochs' is given twice (first on line 20)"),
        ("name: [unclosed\ntask: {}\n", "recipe.yaml:2: this is not YAML: "),
        ("name: a\n\tb: c\n", "recipe.yaml:2: this is not YAML: "),
        ("name: !!python/object:os.system {}\n", "recipe.yaml:1: this is not YAML: "),
        ("name: 2026-13-45\n", "recipe.yaml: this is not YAML: "),
        ("? [a, b]\n: c\n", "recipe.yaml:1: this is not YAML: "),
        ("name: \x00\n", "recipe.yaml: this is not YAML: "),
        ("", "recipe.yaml holds no recipe; `curate init` writes one"),
        ("- a\n- b\n", "recipe.yaml holds no recipe"),
        ("just words", "recipe.yaml holds no recipe"),
    ],
)  # fmt: skip
def test_what_is_not_a_recipe_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    assert findings(write(tmp_path, text))[0].startswith(expected)


def test_a_recipe_that_holds_itself_is_refused(tmp_path: Path) -> None:
    found = findings(write(tmp_path, GOOD + "seed: &s [*s]\n"))
    assert found[0].startswith("recipe.yaml:21: seed is ")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"nowhere\.yaml cannot be read: No such file.*curate init"
    ):
        load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match=r"cannot be read: Is a directory"):
        load_recipe(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: größe\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml is not UTF-8 at byte 8: save it as UTF-8"):
        load_recipe(path)


# -------------------------------------------------------------------------------------- overrides


def test_overrides_reach_every_place(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, GOOD),
        overrides=[
            "seed=7",
            "student.epochs=1",
            "task.labels=[negative, positive, mixed]",
            "task.goal.macro_f1=0.7",
            "teacher.base_url=http://127.0.0.1:8000/v1",
            "teacher.prices.prompt=1.5",
            "teacher.prices.completion=2",
            "filters.near_duplicate.threshold=0.7",
            "filters.exact_duplicate.same_label=false",
            "data.group=null",
        ],
    )
    assert recipe.seed == 7
    assert recipe.student.epochs == 1
    assert recipe.task.labels == ["negative", "positive", "mixed"]
    assert recipe.task.goal == {"accuracy": 0.8, "macro_f1": 0.7}
    assert recipe.data.group is None
    assert recipe.teacher.model_dump()["prices"] == {"prompt": 1.5, "completion": 2.0}
    assert recipe.built_filters() == [
        filters.ExactDuplicate(same_label=False),
        filters.NearDuplicate(threshold=0.7),
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("student.epochs", "--set 'student.epochs': write key=value, such as student.epochs=1"),
        ("=1", "--set '=1': write key=value"),
        ("student.epochs=two", "--set 'student.epochs=two': student.epochs is 'two': must be a"),
        ("student.epoch=2", "--set 'student.epoch=2': unknown key 'student.epoch' (value 2): did you mean"),
        ("studnt.epochs=2", "--set 'studnt.epochs=2': unknown key 'studnt' (value {'epochs': 2}): did you"),
        ("name.first=a", "--set 'name.first=a': name holds no keys to be set"),
        ("task.labels.first.x=a", "--set 'task.labels.first.x=a': the recipe has no 'first' there"),
        ("filters.near.threshold=1", "--set 'filters.near.threshold=1': the recipe has no 'near' there"),
        ("filters.near_duplicate.treshold=1", "--set 'filters.near_duplicate.treshold=1': filters.1 is"),
        ("seed=[1", "--set 'seed=[1': the value is not YAML"),
        ("seed=2026-99-99", "--set 'seed=2026-99-99': the value is not YAML"),
    ],
)  # fmt: skip
def test_an_override_that_does_not_fit_is_named_itself(
    override: str, expected: str, tmp_path: Path
) -> None:
    assert finding(write(tmp_path, GOOD), override).startswith(expected)


def test_overrides_work_on_mappings_and_leave_them_as_they_were() -> None:
    values: dict[str, Any] = yaml.safe_load(GOOD)
    assert parse_recipe(values, overrides=["student.epochs=9"]).student.epochs == 9
    assert values == yaml.safe_load(GOOD)


def test_every_filter_argument_can_be_written_in_a_recipe() -> None:
    for name, kind in filters.FILTERS.items():
        arguments = {
            field.name: list(field.default) if isinstance(field.default, tuple) else field.default
            for field in dataclasses.fields(kind)
        }
        # An ensemble combines what stands before it.
        before = ["confidence"] if name == "ensemble" else []
        recipe = parse_recipe(yaml.safe_load(GOOD) | {"filters": [*before, {name: arguments}]})
        assert recipe.built_filters()[len(before) :] == [kind()]
        assert Recipe.model_validate(recipe.resolved()) == recipe


def test_overrides_given_as_one_text_are_not_read_letter_by_letter() -> None:
    with pytest.raises(RecipeError, match=r"overrides is 'seed=3': give a list.*\['seed=3'\]"):
        parse_recipe({"name": "small"}, overrides="seed=3")
