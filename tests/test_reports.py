from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from run_folder_example import LABELS, change_run, make_run

import curate.reports
from curate.reports import ReportError, write_report
from curate.reports.charts import ReliabilityCurve, ticks
from curate.reports.curves import calibration_error
from curate.reports.files import read_run
from curate.reports.findings import paired_difference
from curate.reports.texts import (
    as_duration,
    as_money,
    as_percent,
    as_points,
    clip,
    mark_differences,
    mask_secrets,
)

SECTIONS = [
    *("result", "funnel", "dropped", "review", "balance", "confidence", "clusters", "training"),
    *("systems", "disagreements", "errors", "cost", "versions"),
]
BLOCKS = {"td", "th", "dt", "dd", "li", "p", "h2", "h3", "h4", "div", "title", "button", "caption"}
VOID = {"meta", "link", "img", "br", "input", "hr", "base", "embed", "source", "wbr"}


class Page(HTMLParser):
    """The page as a browser would see it: elements with attributes, and the text by section."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.sections: dict[str, str] = {}
        self._open: list[str] = []
        self._section = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        self.elements.append((tag, attributes))
        if tag == "section":
            self._section = attributes["id"]
            self.sections[self._section] = ""
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"
        if tag == "section":
            self._section = ""
        elif self._section and tag in BLOCKS:
            self.sections[self._section] += " "

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif self._section:
            self.sections[self._section] += data

    def text(self, section: str) -> str:
        """The section's text with every run of white space as one space."""
        return " ".join(self.sections[section].replace("\u00a0", " ").split())

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def map_data(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))


def page_of(run: Path) -> Page:
    return Page(write_report(run))


def rewrite(run: Path, name: str, **columns: Any) -> None:
    """Replace columns of one of the run's tables."""
    path = run / f"{name}.parquet"
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)


def numbers(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A run and its page, for tests that change neither."""
    folder = make_run(tmp_path_factory.mktemp("shared") / "run")
    return folder, page_of(folder)


@pytest.fixture
def run(shared: tuple[Path, Page], tmp_path: Path) -> Path:
    """A run without a page, for a test to change."""
    folder = tmp_path / "run"
    shutil.copytree(shared[0], folder)
    (folder / "report.html").unlink()
    return folder


def test_the_page_is_one_file_and_asks_for_nothing(shared: tuple[Path, Page]) -> None:
    run, page = shared
    assert write_report(run) == run / "report.html"
    assert not [p.name for p in run.iterdir() if p.name.endswith(".part")]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "source", "video"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert name not in {"src", "srcset", "poster", "data", "action", "style"}, (tag, name)
            assert not name.startswith("on"), (tag, name)
            if name == "href":
                assert value.startswith("#")
    assert not re.search(r"@import|url\s*\(", page.source)
    assert "http://" not in page.source
    assert "https://" not in page.source


def test_the_policy_allows_the_pages_own_script_and_style_and_no_other(
    shared: tuple[Path, Page],
) -> None:
    page = shared[1]
    policy = next(m["content"] for m in page.named("meta") if "Policy" in m.get("http-equiv", ""))
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'"

    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    style = page.source.split("<style>")[1].split("</style>")[0]
    assert rules["style-src"] == allowed(style)
    assert rules["script-src"] == allowed(page.scripts[-1])
    assert [s.get("type") for s in page.named("script")] == ["application/json", None]


def test_every_section_stands_in_order_with_a_link_to_it(shared: tuple[Path, Page]) -> None:
    page = shared[1]
    assert [s["id"] for s in page.named("section")] == SECTIONS
    links = [a["href"] for a in page.named("a") if a["href"] != "#result"]
    assert links == [f"#{name}" for name in SECTIONS[1:]]


def test_the_result_gives_each_system_with_its_interval(shared: tuple[Path, Page]) -> None:
    run, page = shared
    result = page.text("result")
    for system in ("teacher", "student", "tfidf", "majority"):
        accuracy = numbers(run)["metrics"][system]["accuracy"]
        value = f"{100 * accuracy['value']:.1f} %"
        interval = f"{100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}"
        assert f"{value} {interval}" in result
    assert "160 test rows" in result
    rows = [r["data-system"] for r in page.named("tr") if "data-system" in r]
    assert rows == ["teacher", "student", "tfidf", "majority"]


def test_the_funnel_gives_rows_and_losses(shared: tuple[Path, Page]) -> None:
    run, page = shared
    funnel, text = numbers(run)["funnel"], page.text("funnel")
    assert f"train rows read {funnel[0]['rows']}" in text
    for before, after in pairwise(funnel):
        lost = before["rows"] - after["rows"]
        assert f"{after['stage']} {after['rows']}" + (f" −{lost}" if lost else "") in text


def test_each_filter_shows_its_count_and_examples_with_twins(run: Path) -> None:
    dropped = numbers(run)["stages"]["curated"]["dropped"]
    decisions = pl.read_parquet(run / "decisions.parquet")
    edge = decisions.filter(
        (pl.col("filter") == "near_duplicate") & (pl.col("verdict") == "drop")
    ).row(0, named=True)
    rewrite(
        run,
        "examples",
        input=pl.col("id").replace_strict(
            {
                edge["id"]: "The strap broke on day two.",
                edge["related_id"]: "The strap tore today.",
            },
            default=pl.col("input"),
        ),
    )
    for name in ("curated", "labeled"):
        pl.read_parquet(run / f"{name}.parquet").drop("input").write_parquet(
            run / f"{name}.parquet"
        )
    decisions.filter(pl.col("filter") != "near_duplicate").vstack(
        pl.DataFrame([edge], schema=decisions.schema)
    ).write_parquet(run / "decisions.parquet")
    page = page_of(run)
    text = page.text("dropped")
    for reason, n in dropped.items():
        assert f"{reason} {n} row" in text
    assert f"{edge['id']} · " in text
    assert f"score {edge['score']:.3f}, threshold 0.800 The strap broke on day two." in text
    assert "The strap <mark>broke on day two</mark>." in page.source
    assert "The strap <mark>tore today</mark>." in page.source


def test_conflicts_are_counted_as_pairs_and_shown_with_both_labels(run: Path) -> None:
    edges = pl.DataFrame(
        {
            "id": ["r0001", "r0002"],
            "filter": ["near_duplicate"] * 2,
            "score": [0.9, 0.9],
            "threshold": [0.8, 0.8],
            "related_id": ["r0002", "r0001"],
            "verdict": ["conflict"] * 2,
        }
    )
    edges.write_parquet(run / "decisions.parquet")
    labels = pl.col("id").replace_strict(
        {"r0001": "positive", "r0002": "negative"}, default=pl.col("label")
    )
    rewrite(run, "curated", label=labels, keep=pl.lit(True), confidence=pl.lit(0.75))
    text = page_of(run).text("review")
    assert "Conflicts 1 pair " in text
    assert "r0001 · positive, 75 % sure · kept" in text
    assert "r0002 · negative, 75 % sure · kept" in text


def test_label_balance_before_and_after(shared: tuple[Path, Page]) -> None:
    run, page = shared
    balance, text = numbers(run)["balance"], page.text("balance")
    for label in LABELS:
        before, after = balance["before"][label], balance["after"][label]
        share = 100 * before / sum(balance["before"].values())
        assert f"{label} {before} {share:.0f} % {after}" in text


def test_costs_tokens_and_reuse(run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["stages"]["labeled"]["cost_usd"] = 1.5
        content["stages"]["student"] |= {"reused": True, "seconds": 3600.0}

    change_run(run, change)
    text = page_of(run).text("cost")
    labeled = numbers(run)["stages"]["labeled"]
    assert f"{labeled['prompt_tokens']:,} {labeled['completion_tokens']:,} $1.50" in text
    assert "Read examples reused" in text
    assert "Train the student reused" in text
    seconds = sum(s["seconds"] for s in numbers(run)["stages"].values() if not s["reused"])
    assert text.split("reused stages not counted")[1].startswith(
        " " + as_duration(seconds).replace("\u00a0", " ")
    )


def test_costs_of_a_reused_stage_are_not_said_to_be_paid_again(run: Path) -> None:
    change_run(run, lambda c: c["stages"]["labeled"].update(cost_usd=1.5, reused=True))
    assert "Paid to the teacher's provider in this run: $0.00." in page_of(run).text("cost")


EVIL = """"><script>document.title='owned'</script><img src=x onerror='alert(1)'>&amp; </script> ' \\"""


def test_text_of_the_data_stays_text(run: Path) -> None:
    for name in ("examples", "labeled", "curated", "predictions"):
        rewrite(run, name, input=EVIL + pl.col("id"))
    rewrite(run, "labeled", rationale=pl.lit(EVIL))
    rewrite(run, "curated", label=pl.lit(EVIL), reason=pl.lit(EVIL))
    rewrite(run, "predictions", prediction=pl.lit(EVIL), gold=pl.lit("no " + EVIL))

    def change(content: dict[str, Any]) -> None:
        content["name"] = content["verdict"] = EVIL
        content["recipe"]["task"]["instruction"] = EVIL
        content["stages"]["curated"]["dropped"] = {EVIL: 3}
        content["stages"]["curated"]["clusters"][0]["words"] = [EVIL]
        content["balance"] = {"before": {EVIL: 2}, "after": {EVIL: 1}}
        content["funnel"][0]["stage"] = EVIL
        content["versions"] = {EVIL: EVIL}
        for metrics in content["metrics"].values():
            metrics["per_class"][0]["label"] = EVIL
            metrics["confusion"] |= {"labels": [EVIL, "n"], "columns": [EVIL, "n", "(none)"]}
            metrics["accuracy"] = {"value": 0.0, "low": 0.0, "high": 0.1}

    change_run(run, change)
    page = page_of(run)
    assert len(page.named("script")) == 2
    assert not page.named("img")
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    seen = " ".join(EVIL.split())
    for section in ("funnel", "dropped", "balance", "clusters", "systems", "disagreements"):
        assert seen in page.text(section), section
    data = page.map_data()
    assert data["points"][0][3] == EVIL + data["points"][0][2]
    assert data["labels"] == [EVIL]
    assert not set(page.scripts[0]) & set("<>&'")
    assert "owned" not in page.scripts[1]


def test_control_characters_and_line_separators_do_not_break_the_page(run: Path) -> None:
    odd = "a\u2028b\u2029c\x00d\x0be\u202ef"
    for name in ("examples", "labeled", "curated", "predictions"):
        rewrite(run, name, input=pl.lit(odd) + pl.col("id"))
    page = page_of(run)
    assert not re.search(r"[\x00-\x08\x0b\x0c\u2028]", page.scripts[0])
    assert page.map_data()["points"][0][3].startswith("a\u2028b\u2029c�d�e\u202ef")


def test_a_megabyte_of_text_is_cut(run: Path) -> None:
    curated, predictions = (
        pl.read_parquet(run / f"{n}.parquet") for n in ("curated", "predictions")
    )
    wrong = predictions.filter(
        (pl.col("system") == "student") & (pl.col("prediction") != pl.col("gold"))
    )
    gone = curated.filter(pl.col("reason") == "unlabelled")
    long = pl.lit("words without end " * 60_000)
    chosen = [wrong.sort("confidence")["id"][-1], gone["id"][0]]
    for name in ("examples", "labeled", "curated", "predictions"):
        text = pl.when(pl.col("id").is_in(chosen)).then(long).otherwise(pl.col("input"))
        rewrite(run, name, input=text)
    page = page_of(run)
    assert len(page.source) < 600_000
    assert "words without end words" in page.text("dropped")
    assert "(1,080,000 characters in all)" in page.text("dropped")
    assert "(1,080,000 characters in all)" in page.text("disagreements")
    assert any(point[3].endswith("…") for point in page.map_data()["points"])


def verdict(low: float, value: float, high: float, *, met: bool) -> Any:
    def change(content: dict[str, Any]) -> None:
        entry = {"metric": "accuracy", "target": 0.85, "value": value, "low": low, "high": high}
        content["goal"] = [entry | {"met": met}]

    return change


@pytest.mark.parametrize(
    ("goal", "said", "not_said"),
    [
        ((0.86, 0.9, 0.93, True), "Goal met", "interval reaches"),
        ((0.82, 0.87, 0.9, True), "The interval reaches below the goal", "Goal not met"),
        ((0.8, 0.84, 0.88, False), "The interval reaches the goal", "Goal met"),
        ((0.7, 0.75, 0.8, False), "Goal not met", "interval reaches"),
    ],
)
def test_the_verdict_is_plain_about_doubt(
    run: Path, goal: tuple[float, float, float, bool], said: str, not_said: str
) -> None:
    low, value, high, met = goal
    change_run(run, verdict(low, value, high, met=met))
    text = page_of(run).text("result")
    assert said in text
    assert not_said not in text
    assert f"{100 * value:.1f} % (95 % interval {100 * low:.1f}–{100 * high:.1f})" in text


def test_no_goal_and_a_goal_without_a_student(run: Path) -> None:
    change_run(run, lambda c: c.update(goal=[]))
    text = page_of(run).text("result")
    assert "Goal not measured" in text
    assert "Accuracy of at least 85.0 %: not measured." in text
    change_run(run, lambda c: c["recipe"]["task"].pop("goal"))
    assert "No goal was set" in page_of(run).text("result")


def set_scores(content: dict[str, Any], **by_metric: tuple[float, float]) -> None:
    for metric, (student, tfidf) in by_metric.items():
        for system, value in (("student", student), ("tfidf", tfidf)):
            content["metrics"][system][metric] = {
                "value": value,
                "low": value - 0.03,
                "high": value + 0.03,
            }


def test_the_report_says_so_when_tfidf_wins(tmp_path: Path) -> None:
    skills = {"majority": 0.0, "tfidf": 0.95, "teacher": 0.88, "student": 0.75}
    run = make_run(tmp_path / "run", skills=skills)
    metrics = numbers(run)["metrics"]
    rival, student = (
        as_percent(metrics[key]["accuracy"]["value"]).replace("\u00a0", " ")
        for key in ("tfidf", "student")
    )
    page = page_of(run)
    assert f"TF-IDF wins over the student: {rival} accuracy against {student}" in page.text(
        "result"
    )
    assert "ahead of TF-IDF" not in page.text("result")


def test_the_report_does_not_boast_of_a_lead_within_the_noise(run: Path) -> None:
    predictions = pl.read_parquet(run / "predictions.parquet")
    one = predictions.filter(pl.col("system") == "student")
    # TF-IDF answers as the student does, but for one row that only the student has right.
    right = one.filter(pl.col("prediction") == pl.col("gold"))["id"][0]
    flipped = pl.when(pl.col("id") == right).then(pl.lit("neither")).otherwise(pl.col("prediction"))
    other = one.with_columns(system=pl.lit("tfidf"), prediction=flipped)
    pl.concat([one, other]).write_parquet(run / "predictions.parquet")
    value = numbers(run)["metrics"]["student"]["accuracy"]["value"]
    change_run(run, lambda c: set_scores(c, accuracy=(value, value - 1 / 160)))
    page = page_of(run)
    assert "0.6 points ahead of TF-IDF" in page.text("result")
    assert "these test rows do not tell the two apart" in page.text("result")
    assert not [li for li in page.named("li") if li.get("class") == "good"]


def test_a_win_of_tfidf_in_another_metric_is_said_too(run: Path) -> None:
    change_run(run, lambda c: set_scores(c, accuracy=(0.9, 0.8), macro_f1=(0.7, 0.8)))
    text = page_of(run).text("result")
    assert "In Macro F1, TF-IDF wins: it is 10.0 points ahead of the student." in text
    assert "TF-IDF wins over the student" not in text


def test_the_runs_notes_and_failed_rows_are_told(run: Path) -> None:
    change_run(
        run, lambda c: c.update(notes=["3 test rows without a reference label are left out."])
    )
    text = page_of(run).text("result")
    assert "3 test rows without a reference label are left out." in text
    errors = numbers(run)["stages"]["labeled"]["errors"]["TeacherTimeout"]
    assert errors > 0
    assert f"{errors} rows got no label from the teacher ({errors} TeacherTimeout)." in text


def test_agreement_with_the_teacher_is_not_called_correctness(run: Path) -> None:
    rewrite(run, "labeled", gold=pl.lit(None, pl.String))
    page = page_of(run)
    assert "agreement, not correctness" in page.text("result")
    assert "Rows: the teacher's label." in page.text("systems")
    assert "human label" not in page.text("systems")


def test_disagreements_stand_in_one_list_each_with_the_rationale(run: Path) -> None:
    gold = {"t1": "positive", "t2": "positive", "t3": "negative", "t4": "positive"}
    said = {
        "teacher": {"t1": "positive", "t2": "negative", "t3": "positive", "t4": "positive"},
        "student": {"t1": "negative", "t2": "negative", "t3": "negative", "t4": "positive"},
    }
    rows = [
        {
            "id": one,
            "input": f"Sentence {one} about a strap.",
            "gold": gold[one],
            "system": system,
            "prediction": answer,
            "confidence": 0.9,
        }
        for system, answers in said.items()
        for one, answer in answers.items()
    ]
    pl.DataFrame(rows).write_parquet(run / "predictions.parquet")
    labeled = [
        {"id": "t1", "split": "test", "gold": "positive", "rationale": "A strap is praised."}
    ]
    pl.DataFrame(labeled).write_parquet(run / "labeled.parquet")
    for system, accuracy in (("teacher", 0.5), ("student", 0.5)):
        entry = {"value": accuracy, "low": 0.1, "high": 0.9}
        change_run(run, lambda c, s=system, e=entry: c["metrics"][s].update(accuracy=e))
    text = page_of(run).text("disagreements")
    assert (
        "Of 4 test rows both are right on 1, only the teacher on 1, only the student on 1" in text
    )
    lists = re.split(r"Student wrong, teacher right|Both wrong|Teacher wrong, student right", text)
    assert [re.findall(r"t\d", part) for part in lists[1:]] == [["t1"], ["t2"], ["t3"]]
    assert (
        "Human label positive Teacher positive, 90 % sure Student negative, 90 % sure" in lists[1]
    )
    assert "Teacher’s rationale: A strap is praised." in lists[1]


def test_answers_that_equality_cannot_judge_are_left_out_not_shown_wrongly(run: Path) -> None:
    # Scored by the task's own rule, every answer of the student is right.
    perfect = {"value": 1.0, "low": 0.98, "high": 1.0}
    change_run(run, lambda c: c["metrics"]["student"].update(accuracy=perfect))
    text = page_of(run).text("disagreements")
    assert "Left out: Student." in text
    assert "Student wrong" not in text


def test_gold_may_be_a_list_of_references(run: Path) -> None:
    rewrite(run, "predictions", gold=pl.concat_list(pl.col("gold"), pl.lit("something else")))
    text = page_of(run).text("disagreements")
    assert "Left out" not in text
    assert "positive / something else" in text


def without_file(name: str) -> Any:
    return lambda run: (run / name).unlink()


def without_columns(name: str, *columns: str) -> Any:
    def change(run: Path) -> None:
        path = run / f"{name}.parquet"
        pl.read_parquet(path).drop(columns).write_parquet(path)

    return change


def without_part(*keys: str) -> Any:
    def change(run: Path) -> None:
        def cut(content: dict[str, Any]) -> None:
            for key in keys[:-1]:
                content = content[key]
            del content[keys[-1]]

        change_run(run, cut)

    return change


@pytest.mark.parametrize(
    ("change", "section", "said"),
    [
        (without_file("student/history.json"), "training", "No student was trained in this run"),
        (without_file("predictions.parquet"), "disagreements", "No student answered"),
        (without_file("curated.parquet"), "clusters", "No map"),
        (without_file("decisions.parquet"), "dropped", "exact_duplicate"),
        (without_file("labeled.parquet"), "disagreements", "Student wrong"),
        (without_file("examples.parquet"), "dropped", "exact_duplicate"),
        (without_columns("curated", "map_x", "map_y"), "clusters", "No map"),
        (without_columns("curated", "cluster"), "clusters", "battery, charge, hours"),
        (without_columns("curated", "confidence"), "confidence", "gave no confidence"),
        (without_columns("predictions", "confidence"), "confidence", "No reliability curve"),
        (without_columns("labeled", "rationale"), "disagreements", "Student wrong"),
        (without_part("metrics"), "result", "No system was scored"),
        (without_part("metrics", "student"), "result", "TF-IDF + logistic regression"),
        (without_part("metrics", "teacher", "confusion"), "systems", "Confusion matrices"),
        (without_part("stages", "curated", "clusters"), "clusters", "positive ("),
        (without_part("stages", "student"), "cost", "Ask the teacher"),
        (without_part("stages"), "cost", "names no stage"),
        (without_part("balance"), "balance", "No balance to show"),
        (without_part("funnel"), "funnel", "run.json has no funnel"),
        (without_part("versions"), "versions", "seed"),
        (without_part("recipe"), "versions", "seed"),
    ],
)
def test_a_missing_part_is_said_and_the_rest_is_shown(
    run: Path, change: Any, section: str, said: str
) -> None:
    change(run)
    page = page_of(run)
    assert [s["id"] for s in page.named("section")] == SECTIONS
    assert said in page.text(section)


def test_a_label_only_student_without_rationales(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", rationales=False, probabilities=False))
    assert "rationale loss" not in page.text("training")
    assert "rationale:" not in page.text("disagreements")


def test_a_free_text_task(run: Path) -> None:
    answer = pl.concat_str(pl.lit("answer to "), pl.col("id"))
    for name in ("labeled", "curated"):
        rewrite(run, name, label=answer, confidence=pl.lit(-0.35), choices=pl.lit(None))
    rewrite(run, "predictions", prediction=answer, confidence=pl.lit(-0.35), choices=pl.lit(None))

    def change(content: dict[str, Any]) -> None:
        content["recipe"]["task"].pop("labels")
        counts = {f"answer to r{number:04d}": 1 for number in range(320)}
        content["balance"] = {"before": counts, "after": counts}
        for metrics in content["metrics"].values():
            metrics |= {"macro_f1": None, "per_class": [], "confusion": None}
            metrics["accuracy"] = metrics["exact_match"] = {"value": 0.0, "low": 0.0, "high": 0.02}

    change_run(run, change)
    page = page_of(run)
    assert "answers are free text" in page.text("balance")
    assert "No scores by label" in page.text("systems")
    assert "No reliability curve" in page.text("confidence")
    assert "mean log-probability of a token" in page.sections["confidence"]
    assert [o["value"] for o in page.named("option")] == [
        *("kept", "reason", "cluster", "confidence"),
    ]


def test_many_labels_are_cut_to_what_can_be_read(run: Path) -> None:
    labels = [f"topic {number}" for number in range(60)]

    def change(content: dict[str, Any]) -> None:
        content["balance"] = {"before": dict.fromkeys(labels, 2), "after": dict.fromkeys(labels, 1)}
        content["recipe"]["task"]["labels"] = labels
        matrix = [[9 if i == j else 0 for j in range(61)] for i in range(60)]
        matrix[3][4] = 7
        scores = {"precision": 0.5, "recall": 0.5, "f1": 0.5}
        for metrics in content["metrics"].values():
            metrics["per_class"] = [{"label": n, "support": 9, **scores} for n in labels]
            metrics["confusion"] = {"labels": labels, "columns": [*labels, "(none)"]}
            metrics["confusion"]["matrix"] = matrix

    change_run(run, change)
    page = page_of(run)
    assert "31 rarer labels 62 52 % 31 52 %" in page.text("balance")
    assert "The 40 labels with most test rows, of 60." in page.text("systems")
    assert "Human label Answer Rows topic 3 topic 4 7" in page.text("systems")


def test_secrets_of_the_recipe_are_never_shown(run: Path) -> None:
    secret = "s3cr3t-do-not-show"

    def change(content: dict[str, Any]) -> None:
        content["recipe"]["teacher"] |= {
            "api_key": secret,
            "headers": {"X-Custom": secret},
            "max_tokens": 256,
            "api_key_env": "TEACHER_KEY",
            "base_url": f"http://someone:{secret}@127.0.0.1:8000/v1?api_key={secret}",
        }
        content["recipe"]["data"]["note"] = "Bearer abcdefgh12345678 and sk-abcdefgh12345678"
        content["stages"]["labeled"]["teacher"] = f"http://someone:{secret}@127.0.0.1"

    change_run(run, change)
    page = page_of(run)
    assert secret not in page.source
    assert "abcdefgh12345678" not in page.source
    recipe = page.text("versions")
    assert "max_tokens: 256" in recipe
    assert "api_key_env: TEACHER_KEY" in recipe
    assert "127.0.0.1:8000/v1" in recipe


@pytest.mark.parametrize(
    "key",
    [
        *("api_key", "apiKey", "API-KEY", "openai_api_key", "key", "token", "hf_token", "password"),
        *("Authorization", "proxy_authorization", "headers", "extraHeaders", "client_secret"),
        *("credentials", "cookie", "access_key", "private_key_path"),
    ],
)
def test_a_key_that_names_a_secret_is_masked(key: str) -> None:
    assert "hush" not in json.dumps(mask_secrets({"teacher": [{key: "hush"}, {key: ["hush"]}]}))


@pytest.mark.parametrize(
    "key",
    ["max_tokens", "tokens_per_minute", "answer_key", "keys", "monkey", "tokenizer", "author"],
)
def test_a_key_that_names_no_secret_is_shown(key: str) -> None:
    assert mask_secrets({key: "shown"}) == {key: "shown"}


def test_an_environment_variable_is_named_but_a_key_in_its_place_is_not_shown() -> None:
    assert mask_secrets({"api_key_env": "MY_KEY"}) == {"api_key_env": "MY_KEY"}
    assert "abc" not in str(mask_secrets({"api_key_env": "abc123"}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda run: (run / "run.json").unlink(), "has no run.json"),
        (lambda run: (run / "run.json").write_text('{"name": '), "run.json cannot be read"),
        (lambda run: (run / "run.json").write_bytes(b'{"a": "\xff"}'), "run.json cannot be read"),
        (lambda run: (run / "run.json").write_text("[1]"), "not an object"),
        (lambda run: change_run(run, lambda c: c.update(metrics=[1])), "'metrics' is [1]"),
        (lambda run: change_run(run, lambda c: c.update(goal=["x"])), "list of objects"),
        (lambda run: (run / "curated.parquet").write_bytes(b"PAR1 no"), "curated.parquet cannot"),
        (
            lambda run: (run / "student" / "history.json").write_text("{"),
            "history.json cannot be read",
        ),
    ],
)
def test_a_damaged_run_folder_is_one_clear_error(run: Path, damage: Any, named: str) -> None:
    damage(run)
    with pytest.raises(ReportError, match=re.escape(named)) as caught:
        write_report(run)
    assert isinstance(caught.value, ValueError)
    assert str(run) in str(caught.value)
    assert "curate run recipe.yaml" in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_table_cut_short_is_an_error_that_names_it(run: Path) -> None:
    content = (run / "predictions.parquet").read_bytes()
    (run / "predictions.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ReportError, match=r"predictions\.parquet cannot be read"):
        write_report(run)


def test_a_missing_run_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"runs/x does not exist.*curate run recipe\.yaml"):
        write_report(tmp_path / "runs/x")


def test_a_page_that_cannot_be_written_leaves_nothing_half(run: Path) -> None:
    (run / "report.html").mkdir()
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(run)
    assert not [p.name for p in run.iterdir() if p.name.endswith(".part")]


def test_the_same_run_gives_the_same_page(shared: tuple[Path, Page]) -> None:
    run, page = shared
    assert write_report(run).read_text(encoding="utf-8") == page.source


def test_the_map_shows_every_row_with_its_fate(shared: tuple[Path, Page]) -> None:
    run, page = shared
    curated = {row["id"]: row for row in pl.read_parquet(run / "curated.parquet").to_dicts()}
    data = page.map_data()
    assert len(data["points"]) == len(curated) == 320
    marks = [a for tag, a in page.elements if a.get("class", "").split(" ")[0] == "p"]
    assert len(marks) == 320
    for point, mark in zip(data["points"], marks, strict=True):
        _, _, one, text, label, confidence, reason, cluster = point
        row = curated[one]
        assert text == row["input"]
        assert (data["labels"][label] if label >= 0 else None) == row["label"]
        assert confidence == (None if row["confidence"] is None else round(row["confidence"], 3))
        assert (data["reasons"][reason] if reason >= 0 else None) == row["reason"]
        assert cluster == row["cluster"]
        assert ("drop" in mark["class"].split()) == (not row["keep"])
    clusters = page.text("clusters")
    for cluster in numbers(run)["stages"]["curated"]["clusters"]:
        assert ", ".join(cluster["words"]) in clusters
        assert f"{cluster['kept']} {cluster['size']}" in clusters


def test_five_thousand_rows_stay_under_three_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", train=400)
    curated = pl.read_parquet(run / "curated.parquet")
    many = pl.concat([curated] * 13).head(5000)
    long = pl.col("input") + " The seller answered within the hour and was kind about it." * 4
    many = many.with_columns(id=pl.concat_str("id", pl.int_range(5000)), input=long)
    many.write_parquet(run / "curated.parquet")
    page = page_of(run)
    assert len(page.source.encode()) < 3_000_000
    assert len(page.map_data()["points"]) == 3000
    assert "a random sample of 3,000 of 5,000 rows" in page.text("clusters")


def test_validation_rows_in_the_curated_table_take_no_part(run: Path) -> None:
    before = page_of(run)
    curated = pl.read_parquet(run / "curated.parquet")
    held = curated.head(5).with_columns(
        split=pl.lit("validation"), id=pl.lit("v") + pl.col("id"), confidence=pl.lit(0.99)
    )
    pl.concat([curated, held]).write_parquet(run / "curated.parquet")
    assert page_of(run).source == before.source


def test_differing_words_are_marked_in_both_texts() -> None:
    one, other = mark_differences(
        "The strap broke on day two.", "The <b>buckle</b> broke on day 2!"
    )
    assert str(one) == "The <mark>strap</mark> broke on day <mark>two.</mark>"
    assert str(other) == ("The <mark>&lt;b&gt;buckle&lt;/b&gt;</mark> broke on day <mark>2!</mark>")


def test_long_equal_stretches_are_shortened_and_endless_text_is_bounded() -> None:
    same = " ".join(f"word{number}" for number in range(100))
    one, other = mark_differences(f"{same} left", f"{same} right")
    assert "… 80 words …" in one
    assert "word50" not in one
    assert one.endswith("<mark>left</mark>")
    assert other.endswith("<mark>right</mark>")
    huge = mark_differences("a" * 2_000_000, "b " * 1_000_000)
    assert all("(cut)" in side and len(side) < 40_000 for side in huge)


def test_clip_says_how_much_there_was() -> None:
    assert clip("The strap broke.", 100) == "The strap broke."
    assert clip("x" * 1500, 10) == "xxxxxxxxxx … (1,500 characters in all)"
    assert clip(None) == "–"


def test_numbers_as_a_person_writes_them() -> None:
    assert [as_duration(s) for s in (0.44, 12.2, 59.7, 192, 3725)] == [
        *("0.4\u00a0s", "12\u00a0s", "1\u00a0min 00\u00a0s", "3\u00a0min 12\u00a0s"),
        "1\u00a0h 02\u00a0min",
    ]
    assert [as_money(m) for m in (0.0, 0.0042, 12.5, None)] == ["$0.00", "$0.0042", "$12.50", "–"]
    assert [as_points(p) for p in (0.021, -0.004, 0.0, float("nan"))] == [
        "+2.1",
        "−0.4",
        "0.0",
        "–",
    ]


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.55, 0.95) == [0.6, 0.7, 0.8, 0.9]
    assert ticks(0, 1234) == [0, 500, 1000]


def test_calibration_error_by_hand() -> None:
    # 3 rows at 0.9 of which 2 are right, 1 row at 0.6 that is right.
    bins = [(0.9, 2 / 3, 0.2, 0.9, 3), (0.6, 1.0, 0.2, 1.0, 1)]
    curve = ReliabilityCurve(name="Teacher", style="s-teacher", bins=bins)
    assert calibration_error(curve) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.4)


def test_paired_difference_by_hand_and_wider_within_groups() -> None:
    # Of 10 rows, 3 only "a" has right, 1 only "b", the rest both.
    answers = {(f"t{i}", "a"): i != 3 for i in range(10)}
    answers |= {(f"t{i}", "b"): i > 2 for i in range(10)}
    found = paired_difference(answers, "a", "b", {})
    assert found is not None
    spread = 1.959964 * (3 + 1 - 2**2 / 10) ** 0.5 / 10
    assert found == pytest.approx((0.2, 0.2 - spread, 0.2 + spread))
    grouped = paired_difference(answers, "a", "b", dict.fromkeys(["t0", "t1", "t2"], "review 1"))
    assert grouped is not None
    assert grouped[0] == pytest.approx(0.2)
    assert grouped[2] - grouped[0] > spread * 1.2
    assert paired_difference(answers, "a", "nobody", {}) is None


def test_the_histogram_counts_every_labelled_train_row(shared: tuple[Path, Page]) -> None:
    run, page = shared
    labelled = pl.read_parquet(run / "curated.parquet")["confidence"].drop_nulls()
    assert f"{len(labelled)} labelled train rows" in page.text("confidence")
    below = int((labelled < 0.6).sum())
    assert f"below the minimum of 0.6: {below}." in page.text("confidence")
    counted = re.findall(r"0\.\d+ to [\d.]+: (\d+) (kept|dropped)", page.text("confidence"))
    kept = numbers(run)["stages"]["curated"]["kept"]
    assert sum(int(n) for n, fate in counted if fate == "kept") == kept
    assert sum(int(n) for n, _ in counted) == len(labelled)


def test_reading_knows_columns_that_are_absent(run: Path) -> None:
    without_columns("curated", "reason", "cluster")(run)
    files = read_run(run)
    assert files.curated["reason"].null_count() == files.curated.height == 320


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_stand_out_in_both_themes(theme: int) -> None:
    style = (Path(curate.reports.__file__).parent / "page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colours[one]), luminance(colours[other])))
        return (high + 0.05) / (low + 0.05)

    words = [("ink", "bg"), ("soft", "bg"), ("soft", "panel"), ("accent", "bg"), ("ink", "mark")]
    words += [("good", "good-bg"), ("bad", "bad-bg"), ("ink", "good-bg"), ("bad", "bg")]
    for pair in words:
        assert contrast(*pair) >= 4.5, pair
    systems = ["teacher", "student", "tfidf", "majority", "gold", "kept", "dropped", "before"]
    for name in [*systems, *(f"l{i}" for i in range(8)), *(f"q{i}" for i in range(5))]:
        assert contrast(name, "bg") >= 3, name
        assert contrast(name, "panel") >= 2.8, name
