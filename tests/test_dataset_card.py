"""The dataset card: every number is the run's, every secret stays here, every blank is marked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest
import yaml
from run_folder_example import change_run, make_run
from small_recipe import small_recipe

import curate
from curate.recipe import parse_recipe
from curate.recipe_sharing import shareable_recipe


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "reviews", train=80, test=30)


def card_of(run: Path, **options: Any) -> str:
    return curate.export_set(run, force=True, **options).card.read_text(encoding="utf-8")


def front_of(card: str) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return front


def section(card: str, heading: str) -> str:
    return re.split(r"\n## ", card.split(f"\n## {heading}\n", 1)[1])[0]


def cells(text: str, first: str) -> list[str]:
    """The cells of the table row that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_front_matter_says_what_is_known_and_leaves_the_licence_open(run: Path) -> None:
    card = card_of(run)
    front = front_of(card)
    assert front["pretty_name"] == "product-reviews"
    assert front["task_categories"] == ["text-classification"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train*"}
    assert not {"license", "language"} & set(front)
    data = huggingface_hub.DatasetCard(card).data.to_dict()
    assert data["task_categories"] == front["task_categories"]
    names = [each["name"] for each in data["dataset_info"]["features"]]
    assert names[:4] == ["id", "input", "choices", "label"]
    assert card.startswith("---\n# license: fill in before publishing")
    assert "To be filled in by whoever publishes this set" in section(card, "Licences")


def test_free_text_has_no_category(run: Path) -> None:
    change_run(run, lambda c: c["recipe"]["task"].update(labels=None))
    assert "task_categories" not in front_of(card_of(run))


def test_filters_stand_in_order_with_settings_and_counts(run: Path) -> None:
    rows = pd.read_parquet(run / "curated.parquet")
    change_run(run, lambda c: c["stages"]["curated"].update(policy="ab" * 32))
    found = section(card_of(run), "Filters")
    dropped = rows["reason"].value_counts()
    left = len(rows) - int(dropped.get("unlabelled", 0))
    assert cells(found, "unlabelled")[2:] == [str(len(rows) - left), str(left)]
    order = ["exact_duplicate", "near_duplicate", "confidence", "rebalance"]
    for name in order:
        left -= int(dropped.get(name, 0))
        assert cells(found, name)[2:] == [str(int(dropped.get(name, 0))), str(left)]
    assert left == int(rows["keep"].sum())
    places = [found.index(f"| {name} |") for name in order]
    assert places == sorted(places)
    assert "threshold 0.8, fields [input]" in cells(found, "near_duplicate")[1]
    assert f"`{'ab' * 32}`" in found
    edges = pd.read_parquet(run / "decisions.parquet")
    conflicts = int((edges["verdict"] == "conflict").sum())
    assert f"both kept): {conflicts}" in found


def test_teacher_tokens_and_cost_are_those_of_all_rows(run: Path) -> None:
    found = section(card_of(run), "Teacher and cost")
    assert "- Teacher: `smollm2-135m`" in found
    assert f"{110 * 180:,} prompt, {110 * 24:,} completion" in found
    assert "not known, the recipe has no prices" in found
    assert "180 were asked for in this run and 40 taken from the store" in found
    frame = pd.read_parquet(run / "labeled.parquet")
    frame.assign(cost_usd=0.25).to_parquet(run / "labeled.parquet", index=False)
    change_run(run, lambda c: c["stages"]["labeled"].update(cost_usd=3.5))
    found = section(card_of(run), "Teacher and cost")
    assert "Cost of all these answers: 27.5000 US dollars" in found
    assert "this run paid 3.5000 US dollars" in found


def test_balance_and_results_are_the_runs(run: Path) -> None:
    rows = pd.read_parquet(run / "curated.parquet")
    card = card_of(run)
    for label in ("positive", "negative"):
        before = int((rows["label"] == label).sum())
        after = int(((rows["label"] == label) & rows["keep"]).sum())
        row = cells(section(card, "Balance"), f"`{label}`")
        assert row[1].startswith(f"{before} (")
        assert row[2].startswith(f"{after} (")
    results = section(card, "Results on test rows")
    assert cells(results, "student")[3] == "30"
    assert "Against people's labels" in results
    change_run(run, lambda c: c["stages"]["predictions"].update(reference="teacher"))
    card = card_of(run)
    assert "agreement, not correctness" in section(card, "Results on test rows")
    assert "How often the teacher is right is not known" in section(card, "Known limits")


def test_limits_tell_what_was_checked_and_what_was_not(run: Path) -> None:
    kept = pd.read_parquet(run / "curated.parquet").query("keep")
    right = (kept["label"] == kept["gold"]).mean()
    found = section(card_of(run), "Known limits")
    assert re.search(r"The teacher is right in \d+\.\d% .* before any filter", found)
    assert f"Of the {len(kept)} kept train rows that people labelled, {right:.1%} have" in found
    assert "Wrong labels were not searched for" in found
    assert "were not held against test and validation rows" in found
    assert "No filter looked at them." in found

    def check_more(content: dict[str, Any]) -> None:
        content["recipe"]["filters"] += [["contamination", {}], ["label_noise", {}]]
        content["recipe"]["filters"] += [["unsupported", {}]]
        content["recipe"]["privacy"] = {"entities": None, "regions": ["DE"]}
        content["stages"]["curated"]["dropped"] |= {"contamination": 2, "label_noise": 5}
        content["stages"]["curated"]["warnings"] = ["Half of `positive` is gone."]

    change_run(run, check_more)
    found = section(card_of(run), "Known limits")
    assert "`contamination` dropped 2. The other check, `semantic_contamination`, was not" in found
    assert "`label_noise` suspected and dropped 5 labels" in found
    assert "They were held against: unsupported." in found
    assert "may hold personal data (no filter looked for it)" in found
    assert "replaced in what was sent to the teacher, and in nothing else" in found
    assert "- Half of `positive` is gone." in found
    assert recipe_in(card_of(run))["privacy"] == {"regions": ["DE"]}


def test_sources_and_generated_rows_are_counted(run: Path) -> None:
    frame = pd.read_parquet(run / "curated.parquet")
    mine = frame.index[frame["keep"]][:4]
    frame.loc[mine, "source"] = "generated"
    frame.to_parquet(run / "curated.parquet", index=False)
    kept = int(frame["keep"].sum())
    written = {"rows": 9, "kept": 4, "of_training_set": 4 / kept}
    change_run(run, lambda c: c["stages"]["curated"].update(generated=written))
    found = section(card_of(run), "Sources")
    assert f"- `reviews.csv`: {kept - 4} train rows" in found
    assert f"9, of which 4 were kept, {4 / kept:.1%} of the train rows" in found
    assert "- test rows: `held_out.jsonl`" in found


def test_demonstrations_are_counted_with_where_they_are_from(run: Path) -> None:
    assert "Demonstrations: none." in section(card_of(run), "Task and prompt")

    def show(content: dict[str, Any]) -> None:
        shown = {"input": "Review: it broke.", "label": "negative", "rationale": "A fault."}
        content["recipe"]["task"]["demonstrations"] = [shown, shown | {"label": "positive"}]
        how = {"choose": "similar", "shots": 3, "written": 6}
        content["recipe"]["teacher"]["demonstrations"] = how

    change_run(run, show)
    found = section(card_of(run), "Task and prompt")
    assert (
        "2 from the recipe and up to 6 train rows explained by the teacher, to which their" in found
    )
    assert "3 are shown with a row, chosen as the most similar to it" in found


def test_texts_cannot_break_out_of_the_card(run: Path) -> None:
    words = "Say so.\n```\n# Not a heading\n````\n"
    change_run(run, lambda c: c["recipe"]["task"].update(instruction=words))
    rename = {"positive": "good | bad\n# x", "negative": "negative"}
    change_run(
        run,
        lambda c: c.update(balance={"before": dict.fromkeys(rename.values(), 3), "after": {}}),
    )
    card = card_of(run)
    assert "`````text\n" + words.rstrip() + "\n`````" in section(card, "Task and prompt")
    assert "| `good \\| bad # x` | 3 (50.0%) | 0 (0.0%) |" in card


# ---------------------------------------------------------------------------------------- the recipe


def recipe_in(card: str) -> dict[str, Any]:
    text = section(card, "How to make it again").split("```yaml\n")[1].split("\n```")[0]
    recipe: dict[str, Any] = yaml.safe_load(text)
    return recipe


def test_the_recipe_in_the_card_is_the_one_that_ran(run: Path) -> None:
    teacher = {"engine": "openai", "model": "gpt-5-mini", "mode": "cot"}
    written = small_recipe(generate={"labels": {"positive": 3}}) | {"teacher": teacher}
    recipe = parse_recipe(written)
    change_run(run, lambda c: c.update(recipe=recipe.resolved()))
    shown = recipe_in(card_of(run))
    assert parse_recipe(shown).sha256() == recipe.sha256()
    assert "privacy" not in shown
    assert shown["filters"] == ["exact_duplicate", {"near_duplicate": {"threshold": 0.95}}]
    assert "limits" not in shown["teacher"], "what equals a default is left out"


def test_no_secret_and_no_folder_is_in_the_recipe() -> None:
    recipe = small_recipe()
    recipe["data"]["train"] = "/home/jane/clients/acme/reviews.csv"
    recipe["student"]["model"] = "~/models/tiny-t5"
    recipe["task"]["instruction"] = "Does it name /etc/passwd?"
    recipe["teacher"] = {
        "engine": "openai",
        "model": "gpt-5-mini",
        "base_url": "https://acme-internal.example/v1",
        "api_key_env": "ACME_KEY",
        "max_tokens": 300,
        "extra": {"auth_token": "tok-123", "max_completion_tokens": 20, "top_k": 4},
    }
    text, changed = shareable_recipe(parse_recipe(recipe).resolved())
    shown = yaml.safe_load(text)
    for word in ("jane", "acme", "tok-123", "~/"):
        assert word not in text
    assert shown["data"]["train"] == "reviews.csv"
    assert shown["student"]["model"] == "tiny-t5"
    assert shown["task"]["instruction"] == "Does it name /etc/passwd?"
    assert shown["teacher"]["api_key_env"] == "ACME_KEY"
    assert shown["teacher"]["max_tokens"] == 300
    assert shown["teacher"]["extra"] == {"max_completion_tokens": 20, "top_k": 4}
    assert changed == [
        "data.train: only the name, without its folder",
        "teacher.base_url: left out",
        "teacher.extra.auth_token: left out",
        "student.model: only the name, without its folder",
    ]
    parse_recipe(shown)


def test_a_recipe_of_another_version_is_shown_as_it_was(run: Path) -> None:
    change_run(run, lambda c: c["recipe"].update(sparkle={"strength": 3}))
    card = card_of(run)
    assert recipe_in(card)["sparkle"] == {"strength": 3}
    assert "threshold 0.8" in section(card, "Filters")
