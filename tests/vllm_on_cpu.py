"""Asks a real vLLM server through ``curate label`` and checks what comes back.

``tests/vllm_on_cpu.sh`` starts the server and calls ``wait`` and then ``check``. Every finding is one
line; the first that is not as it should be ends the script with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from engine_parity import Abilities, all_checks, answers_of, labels_of

from labelers import OpenAICompatible

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "demo.yaml"
KEY = "VLLM_API_KEY"
TRAIN_ROWS, TEST_ROWS = 40, 10
ROWS = TRAIN_ROWS + TEST_ROWS
#: The weights are the same; llama.cpp rounds activations to 8 bits and vLLM to bfloat16.
LEAST_AGREEMENT = 0.85
#: What this server can do, see tests/engine_parity.py.
ABILITIES = Abilities(context=2048, dialects=("vllm", "json_schema"), prompt_logprobs=True)
#: Classes of errors that a row may end with; any other is a defect.
CLASSES = {"off_label", "ambiguous", "unread", "truncated"}


class CheckError(Exception):
    """Something is not as it should be."""


def expect(condition: object, message: str) -> None:
    if not condition:
        raise CheckError(message)


def show(what: str, **figures: object) -> None:
    text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
    print(f"   {what}: {text}" if figures else f"   {what}", flush=True)


@dataclass(frozen=True)
class Server:
    """The server's address and the folder that holds runs and the store."""

    url: str
    work: Path

    def requests(self) -> int:
        """Generations finished since the start, by the server's own count."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        return round(
            sum(float(x.split()[-1]) for x in lines if x.startswith("vllm:request_success_total{"))
        )

    def teacher(self, **values: object) -> str:
        """A recipe's teacher section as ``--set`` takes it."""
        section = {
            "engine": "openai",
            "base_url": f"{self.url}/v1",
            "api_key_env": KEY,
            "model": "smollm2",
            "api": "completions",
            "mode": "score",
            "max_rationale_tokens": 32,
        }
        return "teacher=" + json.dumps(section | values)

    def label(
        self, run: str, *settings: str, recipe: Path = RECIPE, key: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``curate label``; ``key`` replaces the right key, "" leaves none."""
        command = [str(Path(sys.executable).with_name("curate")), "label", str(recipe), "--quiet"]
        command += ["--output", str(self.work / run), "--store", str(self.work / "store")]
        # No student is trained here, and the multitask objective refuses a run without rationales.
        for setting in (*settings, "student.objective=label"):
            command += ["--set", setting]
        environment = dict(os.environ)
        if key is not None:
            environment[KEY] = key
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def labelled(self, run: str, *settings: str, recipe: Path = RECIPE) -> Labelled:
        """Run ``curate label`` to its end and read what it wrote."""
        before = self.requests()
        ended = self.label(run, *settings, recipe=recipe)
        expect(ended.returncode == 0, f"curate label ended with {ended.returncode}: {ended.stderr}")
        info = json.loads((self.work / run / "stages.json").read_text())["labeled"]["info"]
        rows = pd.read_parquet(self.work / run / "labeled.parquet").set_index("id")
        return Labelled(rows, info, self.requests() - before)


@dataclass(frozen=True)
class Labelled:
    """One labeling run: its rows, what it reports, and the requests that the server saw."""

    rows: pd.DataFrame
    info: dict[str, Any]
    requests: int

    @property
    def accuracy(self) -> str:
        clear = self.rows[self.rows["gold"].notna() & self.rows["label"].notna()]
        return f"{(clear['label'] == clear['gold']).mean():.3f} on {len(clear)} clear rows"


def some(rows: int = TRAIN_ROWS, test: int = TEST_ROWS) -> tuple[str, str]:
    return f"data.limit={rows}", f"data.test_limit={test}"


def check_distributions(found: Labelled) -> None:
    labelled = found.rows[found.rows["error"].isna()]
    for row in labelled.to_dict("records"):
        probabilities = [float(p) for p in row["label_probs"]]
        expect(len(probabilities) == len(row["choices"]), f"wrong length: {row}")
        expect(abs(sum(probabilities) - 1) < 1e-9, f"label_probs do not sum to 1: {row}")
        expect(all(0 <= p <= 1 for p in probabilities), f"not probabilities: {row}")
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        expect(row["label"] == row["choices"][best], f"label is not the likeliest: {row}")
        expect(math.isclose(row["confidence"], probabilities[best]), f"wrong confidence: {row}")
        expect(row["label_source"] == "logprobs", f"label_source: {row}")
        expect(0 <= row["off_label_mass"] < 1, f"off_label_mass: {row}")
        expect(row["teacher"] == "smollm2", f"teacher: {row}")
        expect(row["prompt_tokens"] > 0 and row["completion_tokens"] > 0, f"tokens: {row}")
    failed = found.rows[found.rows["error"].notna()]
    for error in failed["error"]:
        expect(error.split(":")[0] in CLASSES, f"an error of no known class: {error}")
    expect(failed["label"].isna().all(), "a row has both a label and an error")


def check_rationales(found: Labelled) -> int:
    train = found.rows[(found.rows["split"] == "train") & found.rows["label"].notna()]
    written = train["rationale"].map(lambda text: bool(text and text.strip()))
    expect(written.mean() >= 0.9, f"only {written.sum()} of {len(train)} rationales are there")
    test = found.rows[found.rows["split"] == "test"]
    expect(test["rationale"].isna().all(), "a test row has a rationale")
    return int(written.sum())


def score(server: Server, api: str, least: int) -> Labelled:
    """Score mode: the labels first, then the rationales on top, then nothing new."""
    print(f"== mode score, api {api}, {ROWS} rows")
    bare = server.labelled(f"{api}-bare", server.teacher(api=api, rationales=False), *some())
    check_distributions(bare)
    expect(len(bare.rows) == ROWS, f"{len(bare.rows)} rows instead of {ROWS}")
    errors = bare.info["errors"]
    expect(ROWS - sum(errors.values()) >= least, f"too many rows failed: {errors}")
    expect(bare.requests == bare.info["asked"] >= ROWS, "asked and served do not agree")
    seconds = bare.info["seconds"]
    show(
        "labels", rows=ROWS, errors=errors or 0, requests=bare.requests, seconds=seconds,
        rows_per_second=f"{ROWS / seconds:.2f}", accuracy=bare.accuracy,
        off_label_mass=f"{bare.rows['off_label_mass'].mean():.3f} in the mean, "
        f"{bare.rows['off_label_mass'].max():.3f} at most",
    )  # fmt: skip

    full = server.labelled(api, server.teacher(api=api), *some())
    check_distributions(full)
    rationales = check_rationales(full)
    wanted = int(((full.rows["split"] == "train") & full.rows["label"].notna()).sum())
    expect(full.requests <= wanted, f"{full.requests} requests for {wanted} rationales")
    expect(list(full.rows["label"]) == list(bare.rows["label"]), "rationales changed labels")
    seconds = full.info["seconds"]
    tokens = full.info["completion_tokens"]
    show(
        "rationales", rows=rationales, requests=full.requests, seconds=seconds,
        rows_per_second=f"{rationales / seconds:.2f}", tokens_per_second=f"{tokens / seconds:.1f}",
    )  # fmt: skip
    show(f"the first: {full.rows['rationale'].dropna().iloc[0]!r}")

    again = server.labelled(f"{api}-again", server.teacher(api=api), *some())
    expect(again.requests == 0 and again.info["asked"] == 0, f"{again.requests} asked again")
    same = again.rows.drop(columns=["label_probs", "choices"])
    expect(same.equals(full.rows.drop(columns=["label_probs", "choices"])), "rows differ")
    show("a second run", asked=again.requests, from_store=again.info["from_store"])
    return bare


def compare_with_llama_cpp(server: Server, vllm: Labelled) -> None:
    print("== the same rows by llama.cpp in this process")
    # One thread: more of them spin while they wait for each other, and slow a busy machine to a crawl.
    settings = ("teacher.rationales=false", "teacher.threads=1")
    here = server.labelled("llama.cpp", *settings, *some())
    there = vllm.rows
    expect(list(here.rows.index) == list(there.index), "other rows")
    same = (here.rows["label"] == there["label"]).mean()
    first = [
        (a[0], b[0]) for a, b in zip(here.rows["label_probs"], there["label_probs"], strict=True)
    ]
    apart = [abs(a - b) for a, b in first]
    show(
        "agreement", labels=f"{same:.3f}", mean_difference=f"{sum(apart) / len(apart):.3f}",
        largest=f"{max(apart):.3f}", accuracy_here=here.accuracy, seconds=here.info["seconds"],
    )  # fmt: skip
    expect(same >= LEAST_AGREEMENT, f"the two engines agree on {same:.0%} of the labels only")
    alike = (here.rows["prompt_tokens"] == there["prompt_tokens"]).mean()
    show("prompts of equally many tokens", share=f"{alike:.2f}")


def chain_of_thought(server: Server) -> None:
    print("== mode cot, 5 rows")
    for api in ("completions", "chat"):
        found = server.labelled(
            f"cot-{api}", server.teacher(api=api, mode="cot", max_tokens=96), *some(4, 1)
        )
        expect(len(found.rows) == 5, f"{len(found.rows)} rows instead of 5")
        for row in found.rows.to_dict("records"):
            if pd.isna(row["error"]):
                expect(row["label"] in ("positive", "negative"), f"label: {row}")
            else:
                expect(row["error"].split(":")[0] in CLASSES, f"error: {row}")
        show(api, errors=found.info["errors"] or 0, accuracy=found.accuracy)
        for row in found.rows.head(2).to_dict("records"):
            said = row["rationale"] if pd.isna(row["error"]) else row["error"]
            show(f"{row['label']}: {'no rationale' if pd.isna(said) else repr(said)}")


def parity(server: Server) -> None:
    """The assertions for every engine; what the offline engine is to be compared with is kept."""
    for api in ("completions", "chat"):
        print(f"== the assertions that hold for every engine, api {api}")
        teacher = OpenAICompatible(
            model="smollm2",
            base_url=f"{server.url}/v1",
            api_key_env=KEY,
            api=api,  # type: ignore[arg-type]
        )

        async def run(teacher: OpenAICompatible = teacher) -> list[tuple[str, str]]:
            await teacher.start()
            try:
                return await all_checks(teacher, ABILITIES)
            finally:
                await teacher.close()

        for name, finding in asyncio.run(run()):
            show(f"{name}: {finding}")
        (server.work / f"answers-{api}.json").write_text(json.dumps(answers_of(teacher)))
        labels = labels_of(teacher, server.work / f"parity-{api}")
        (server.work / f"labels-{api}.json").write_text(json.dumps(labels))
        show("labels kept", rows=len(labels), positive=labels.count("positive"))


def refusals(server: Server) -> None:
    print("== what cannot work is said, with exit code 2")
    right = os.environ[KEY]
    cases = [
        ("unknown model", {"model": "gpt-nine"}, None, ("'gpt-nine'", "it serves: smollm2")),
        ("key missing", {}, "", (KEY, "holds no key")),
        ("key refused", {}, "not-the-key", (KEY, "refuses the key", "401")),
        ("wrong path", {"base_url": server.url}, None, ("404", "teacher.base_url")),
        ("nobody there", {"base_url": "http://127.0.0.1:9/v1"}, None, ("no server answers at",)),
    ]
    for name, teacher, key, words in cases:
        ended = server.label(f"refused-{name}", server.teacher(**teacher), *some(3, 1), key=key)
        expect(ended.returncode == 2, f"{name}: exit code {ended.returncode}: {ended.stderr}")
        for word in words:
            expect(word in ended.stderr, f"{name}: {word!r} is not in {ended.stderr!r}")
        written = list((server.work / f"refused-{name}").glob("labeled*"))
        expect(not written, f"{name}: {written} was written")
        show(f"{name}: {ended.stderr.strip()}")
    for path in server.work.rglob("*"):
        if path.is_file() and path.name != "server.log":
            expect(right.encode() not in path.read_bytes(), f"the key stands in {path}")


def too_long(server: Server) -> None:
    print("== one prompt longer than the server's context")
    texts = ["I love it.", "It broke.", "word " * 3000, "Works well.", "Never again."]
    lines = [
        json.dumps({"id": str(i), "text": text, "split": "test" if i > 3 else "train"})
        for i, text in enumerate(texts)
    ]
    (server.work / "long.jsonl").write_text("\n".join(lines) + "\n")
    where = [f"data={json.dumps({'train': str(server.work / 'long.jsonl')})}"]
    for api in ("completions", "chat"):
        for mode in ("score", "cot"):
            found = server.labelled(
                f"long-{api}-{mode}", *where, server.teacher(api=api, mode=mode, max_tokens=48)
            )
            error = str(found.rows.loc["2", "error"])
            expect(error.startswith("context_length:"), f"{api}, {mode}: {error}")
            others = found.rows.drop(index="2")["error"].dropna()
            expect(
                all(e.split(":")[0] in CLASSES for e in others), f"{api}, {mode}: {list(others)}"
            )
            if mode == "score" and api == "completions":
                expect(others.empty, f"other rows failed: {list(others)}")
    show(error)


def check(url: str, work: Path) -> None:
    server = Server(url, work.resolve())
    started = time.perf_counter()
    by_completion = score(server, "completions", least=ROWS)
    score(server, "chat", least=round(0.8 * ROWS))
    compare_with_llama_cpp(server, by_completion)
    chain_of_thought(server)
    too_long(server)
    parity(server)
    refusals(server)
    print(f"== all as it should be, in {time.perf_counter() - started:.0f} s")


def wait(url: str, pid: int, seconds: float) -> None:
    """Wait until the server answers, its process is gone, or the time is over."""
    started = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            break
        except (urllib.error.URLError, OSError):
            pass
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            raise CheckError("the server ended before it answered") from None
        expect(time.monotonic() - started < seconds, f"no answer within {seconds:.0f} s")
        time.sleep(0.5)
    print(f"== vLLM answers after {time.monotonic() - started:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    waiting = commands.add_parser("wait")
    waiting.add_argument("--pid", type=int, required=True)
    waiting.add_argument("--seconds", type=float, default=600)
    checking = commands.add_parser("check")
    checking.add_argument("--work", type=Path, required=True)
    for command in (waiting, checking):
        command.add_argument("--url", required=True, type=lambda text: re.sub("/+$", "", text))
    given = parser.parse_args()
    try:
        if given.command == "wait":
            wait(given.url, given.pid, given.seconds)
        else:
            check(given.url, given.work)
    except (CheckError, AssertionError) as error:
        print(f"WRONG: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
