"""What the report says of the filters' decisions: savings, twins, suspects, maps, review."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from doubtful_run import DROPPED_SUSPECTS, KEPT_SUSPECTS, LEAKS, make_doubtful_run
from run_folder_example import change_run
from test_reports import Page, numbers, page_of, rewrite

import filters
from curate.reports import write_report
from curate.reports.meanings import MEANINGS

SENTENCES = {
    "r0003": "The buckle <i>snapped</i> while I was on the stairs.",
    "r0010": "السوار انكسر في اليوم الثاني 🙁",
    "r0012": "It plays. " * 100_000,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    folder = make_doubtful_run(tmp_path_factory.mktemp("doubtful") / "run")
    return folder, page_of(folder)


@pytest.fixture
def run(shared: tuple[Path, Page], tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(shared[0], folder)
    return folder


def test_the_funnel_has_a_persons_decisions_as_a_step(shared: tuple[Path, Page]) -> None:
    text = shared[1].text("funnel")
    said = "a person's decisions: 1 left out, 1 accepted, 1 relabelled"
    assert f"after review {said} 314 −1" in text


def test_every_reason_is_explained() -> None:
    assert set(MEANINGS) == {*filters.FILTERS, "unlabelled", "review"}


def test_savings_are_told_apart_with_what_was_counted(run: Path) -> None:
    rewrite(run, "labeled", cost_usd=pl.lit(0.002))
    labeled = pl.read_parquet(run / "labeled.parquet")
    tokens = int(labeled["prompt_tokens"].sum() + labeled["completion_tokens"].sum())

    def change(content: dict[str, Any]) -> None:
        content["stages"]["labeled"] |= {"rows": 480, "asked": 400, "from_store": 80}
        content["stages"]["labeled"] |= {"prompt_tokens": 10_000, "completion_tokens": 0}
        content["stages"]["labeled"] |= {"cost_usd": 0.8}
        content["stages"]["labeled"]["cascade"] = {
            "rows": 480,
            "asked": 100,
            "tokens": 5000,
            "tokens_all_dear": 20_000.0,
            "saved_usd": 1.25,
        }

    change_run(run, change)
    text = page_of(run).text("funnel")
    # 48 rows that `curate dedupe` left out, at a request, the mean tokens and 0.2 cents each.
    assert f"at the mean of the rows of this run. 48 {48 * tokens // 480:,} $0.0960" in text
    assert f"less what this run asked. 80 {tokens - 10_000:,} $0.16" in text
    assert "taken off. 380 15,000 $1.25" in text
    assert "do not add up" in text


def test_a_reused_stage_and_a_run_that_saved_nothing(run: Path) -> None:
    change_run(run, lambda c: c["stages"]["labeled"].update(reused=True))
    assert "Labels reused" in page_of(run).text("funnel")

    def nothing(content: dict[str, Any]) -> None:
        content["stages"]["labeled"] |= {"reused": False, "from_store": 0}
        content["stages"]["curated"] |= {"deduped": None}

    change_run(run, nothing)
    assert "Cost saved None that the run knows of" in page_of(run).text("funnel")


def test_a_leak_stands_beside_the_test_row(shared: tuple[Path, Page]) -> None:
    run, page = shared
    texts = dict(pl.read_parquet(run / "examples.parquet")["id", "input"].iter_rows())
    text = page.text("dropped")
    for row, twin, _, score, threshold in LEAKS:
        assert f"{row} · positive" in text
        assert f"score {score:.3f}, threshold {threshold:.3f} {texts[row]} {twin} · " in text
    assert text.count("test row") >= len(LEAKS)


def test_a_twin_in_another_set_is_called_by_its_name(run: Path) -> None:
    decisions = pl.read_parquet(run / "decisions.parquet")
    leaks = decisions.filter(pl.col("filter") == "contamination")
    named = leaks.with_columns(related_id=pl.lit("x1"), related_set=pl.lit("published benchmark"))
    named.write_parquet(run / "decisions.parquet")
    text = page_of(run).text("dropped")
    assert "twin x1, whose text is in no file" in text
    more = {"id": "x1", "input": "It is light and the screen is sharp.", "split": "other"}
    examples = pl.read_parquet(run / "examples.parquet")
    pl.concat([examples, pl.DataFrame([more])], how="diagonal").write_parquet(
        run / "examples.parquet"
    )
    assert "x1 · no label · published benchmark row" in page_of(run).text("dropped")


def test_examples_cover_the_scores_from_close_calls_to_clear_ones(run: Path) -> None:
    gone = pl.read_parquet(run / "curated.parquet").filter(pl.col("reason") == "rebalance")["id"]
    ids = gone.to_list()[:21]
    edges = [
        {"id": one, "filter": "confidence", "score": 0.60 - 0.01 * i, "threshold": 0.6}
        for i, one in enumerate(ids)
    ]
    table = pl.DataFrame(edges).with_columns(
        related_id=pl.lit(None, pl.String), verdict=pl.lit("drop")
    )
    table.write_parquet(run / "decisions.parquet")
    reason = pl.when(pl.col("id").is_in(ids)).then(pl.lit("confidence")).otherwise(None)
    texts = pl.concat_str(pl.lit("Sentence number "), pl.col("id"))
    rewrite(run, "curated", reason=reason, keep=reason.is_null())
    for name in ("examples", "curated", "labeled"):
        rewrite(run, name, input=texts)
    change_run(run, lambda c: c["stages"]["curated"].update(dropped={"confidence": 21}))
    scores = [float(s) for s in re.findall(r"score (0\.\d+)", page_of(run).text("dropped"))]
    # Close calls and others by turns: the far end, the middle, the quarters.
    assert scores == [0.6, 0.4, 0.59, 0.5, 0.58, 0.55, 0.57, 0.45]


def test_suspects_are_ranked_with_the_models_opinion_and_their_fate(
    shared: tuple[Path, Page],
) -> None:
    run, page = shared
    text = page.text("review")
    rows = {row["id"]: row for row in pl.read_parquet(run / "curated.parquet").to_dicts()}
    kept, gone = text.split("Still in the training set")[1].split("Dropped 3 rows")
    assert "Suspected wrong labels 5 rows" in text
    for part, ids, fate in (
        (kept, KEPT_SUSPECTS, "kept"),
        (gone, DROPPED_SUSPECTS, "dropped (label_noise)"),
    ):
        places = [part.index(f" · {one} · {fate}") for one in ids]
        assert places == sorted(places)
        for one in ids:
            row = rows[one]
            assert f"Label {row['label']}, {100 * row['suspect_label_probability']:.1f} %" in part
            said = f"{row['suspect_opinion']}, {100 * row['suspect_opinion_probability']:.1f} %"
            assert f"Models say {said} Human label {row['gold']}" in part
    wrong = sum(rows[one]["label"] != rows[one]["gold"] for one in DROPPED_SUSPECTS)
    assert f"the teacher's label is not the human one on {wrong}." in gone


def test_texts_of_suspects_are_escaped_and_cut(run: Path) -> None:
    told = pl.col("id").replace_strict(SENTENCES, default=pl.col("input"))
    for name in ("examples", "curated", "labeled", "predictions"):
        rewrite(run, name, input=told)
    page = page_of(run)
    assert SENTENCES["r0003"] in page.text("review")
    assert "<i>snapped" not in page.source
    assert SENTENCES["r0010"] in page.text("review")
    assert "(1,000,000 characters in all)" in page.text("review")
    assert len(page.source) < 400_000


def test_without_an_opinion_the_line_to_add_is_named(run: Path) -> None:
    curated = pl.read_parquet(run / "curated.parquet")
    curated.drop([name for name in curated.columns if name.startswith("suspect_")]).write_parquet(
        run / "curated.parquet"
    )
    change_run(run, lambda c: c["stages"]["curated"].pop("suspects"))
    text = page_of(run).text("review")
    assert "No model was asked about the labels. Add - label_noise under filters" in text


def test_an_opinion_of_the_report_alone_says_that_it_dropped_nothing(run: Path) -> None:
    change_run(run, lambda c: c["stages"]["curated"]["suspects"].update(by="report"))
    assert "Nothing was dropped for it" in page_of(run).text("review")
    rewrite(run, "curated", suspect_rank=pl.lit(None, pl.Int64))
    change_run(
        run, lambda c: c["stages"]["curated"]["suspects"].update(note="The rows are too few.")
    )
    assert "None. The rows are too few." in page_of(run).text("review")


def test_the_command_for_a_review_is_stated(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "curate review run In the column review write accept" in page_of(run).text("review")
    assert str(tmp_path) not in (run / "report.html").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").rename(tmp_path / "my run")
    assert "curate review 'my run'" in Page(write_report(Path("my run"))).text("review")


def test_one_map_of_all_rows_and_one_of_those_that_are_kept(shared: tuple[Path, Page]) -> None:
    run, page = shared
    curated = pl.read_parquet(run / "curated.parquet")
    maps = re.findall(r'<svg class="small-map".*?</svg>', page.source, re.DOTALL)
    dots = [len(re.findall(r"M\d+ \d+h0", one)) for one in maps]
    assert dots == [curated.height, curated["keep"].sum()]
    text = page.text("clusters")
    assert f"Before: all {dots[0]} rows" in text
    assert f"After: the {dots[1]} that are kept" in text
    assert all("battery, charge" in one for one in maps)


def test_what_each_filter_took_of_each_label(shared: tuple[Path, Page]) -> None:
    run, page = shared
    drops = numbers(run)["stages"]["curated"]["drops"]["label"]
    text = page.text("balance").split("What each filter took of each label")[1]
    assert text.startswith(" Label Rows review contamination exact_duplicate near_duplicate")
    for label, counts in drops.items():
        assert f"{label} {counts['rows']} " in text
        assert f"−{counts['exact_duplicate']} −{counts['near_duplicate']}" in text


def test_weights_and_copies_show_in_the_balance(run: Path) -> None:
    change_run(run, lambda c: c["balance"].update(effective={"positive": 99.5, "negative": 120.0}))
    text = page_of(run).text("balance")
    assert "Before After Counts for positive" in text
    assert " 99.5 negative" in text
    assert " 120.0 What rows count for in training" in text


def test_the_balance_by_source_where_there_are_several(run: Path) -> None:
    assert "By source" not in page_of(run).text("balance")
    curated = pl.read_parquet(run / "curated.parquet")
    name = pl.when(pl.int_range(pl.len()) < 20).then(pl.lit("<generated>"))
    rewrite(run, "curated", source=name.otherwise(pl.lit("reviews.csv")))
    kept = curated.head(20)["keep"].sum()
    said = f"<generated> 20 {kept} {5 * kept} %"
    assert said in page_of(run).text("balance").split("By source")[1]


def test_a_hundred_thousand_rows_stay_below_two_megabytes(run: Path) -> None:
    curated = pl.read_parquet(run / "curated.parquet")
    copies = pl.concat([curated] * 313).head(100_000)
    many = copies.with_columns(id=pl.concat_str("id", pl.lit("-"), pl.int_range(pl.len())))
    many.write_parquet(run / "curated.parquet")
    page = page_of(run)
    assert len(page.source.encode()) < 2_000_000
    assert "a random sample of 3,000 of 100,000 rows" in page.text("clusters")
    assert "the worst 12 shown" in page.text("review")
