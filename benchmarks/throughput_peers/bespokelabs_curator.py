"""bespokelabs-curator: ``curator.LLM`` against the same server, its cache in an empty folder."""

from __future__ import annotations

import os
from importlib import metadata, util
from pathlib import Path
from typing import Any

from measuring import MAX_TOKENS, MODEL, Measured, arguments, read_bodies

args = arguments()
found = util.find_spec("litellm")
assert found is not None
assert found.origin is not None
os.environ |= {
    # It counts tokens with tiktoken's vocabulary; litellm brings a copy, which spares a download.
    "TIKTOKEN_CACHE_DIR": str(Path(found.origin).parent / "litellm_core_utils" / "tokenizers"),
    "CURATOR_CACHE_DIR": str(args.scratch),
    "CURATOR_VIEWER": "0",
    "TELEMETRY_ENABLED": "0",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_API_KEY": "none",
}

from bespokelabs import curator  # noqa: E402  (it reads the environment when it is imported)
from datasets import Dataset  # noqa: E402

measured = Measured(args)


class Labeler(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = row["messages"]
        return messages

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"label": response}


rows = Dataset.from_list([{"messages": body["messages"]} for body in read_bodies(args)])
with measured:
    labeler = Labeler(
        model_name=MODEL,
        backend="openai",
        generation_params={"max_tokens": MAX_TOKENS, "temperature": 0.0},
        backend_params={
            "base_url": args.url,
            # Ceilings that never bind; without them its own estimates would.
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 100_000_000_000,
            "max_concurrent_requests": args.in_flight,
        },
    )
    answered = labeler(rows)
    answered = getattr(answered, "dataset", answered)
measured.report(
    sum(label is not None for label in answered["label"]),
    **{"bespokelabs-curator": metadata.version("bespokelabs-curator")},
)
