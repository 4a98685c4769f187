"""From the recipe's section ``teacher`` to a teacher that can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import labelers
from curate.exceptions import CurateError
from curate.recipe_teachers import (
    AskedSection,
    LlamaCppSection,
    OpenAISection,
    PricesSection,
    VLLMSection,
)
from curate.references import resolve_model
from labelers.prices import prices_of

OnAsset = Callable[[Mapping[str, Any]], None]


def build_teacher(
    section: AskedSection, *, base: Path, store: Path, on_asset: OnAsset | None = None
) -> labelers.Teacher:
    """A section's teacher, ready to be asked.

    Args:
        section: What the recipe says of it.
        base: The recipe's folder.
        store: Folder of the exchanges; the journal of batches lies in it.
        on_asset: Receives the progress of a download.

    Raises:
        labelers.TeacherError: If it cannot be set up.
    """
    if isinstance(section, LlamaCppSection):
        return labelers.LlamaCpp(
            model_path=resolve_model(section.model, "teacher", base, on_asset),
            name=section.model,
            api=section.api,
            slots=section.slots,
            context=section.context,
            threads=section.threads,
            prices=_prices(section.prices),
        )
    if isinstance(section, VLLMSection):
        local = base / Path(section.model).expanduser()
        return labelers.VLLM(
            model=str(local) if local.exists() else section.model,
            name=section.model,
            api=section.api,
            concurrency=section.concurrency,
            context=section.context,
            dtype=section.dtype,
            tensor_parallel=section.tensor_parallel,
            gpu_memory_utilization=section.gpu_memory_utilization,
            revision=section.revision,
            top_logprobs=section.top_logprobs,
            engine_args=section.engine_args,
            prices=_prices(section.prices),
        )
    if isinstance(section, OpenAISection):
        return _served(section, store)
    raise CurateError(f"there is no one to ask behind {type(section).__name__}")


def _prices(section: PricesSection | None) -> labelers.Prices | None:
    return None if section is None else section.prices()


def _served(section: OpenAISection, store: Path) -> labelers.Teacher:
    members = [
        labelers.OpenAICompatible(
            model=section.model,
            base_url=url,
            api_key_env=section.api_key_env,
            api=section.api,
            concurrency=section.concurrency,
            revision=section.revision,
            top_logprobs=section.top_logprobs,
            prices=_prices(section.prices),
            extra=section.extra,
            reasoning=section.reasoning,
            dialect=section.structured,
            connect_timeout=section.connect_timeout,
            read_timeout=section.read_timeout,
            total_timeout=section.total_timeout,
        )
        for url in section.urls
    ]
    for member in members:
        # For OpenAI's own API the built-in table knows some prices; others ask what they like.
        member.prices = prices_of(member)[0]
    if section.batch:
        dollars = section.budget is not None and section.budget.usd is not None
        return labelers.OpenAIBatch(
            teacher=members[0],
            journal=store / "batches",
            # Direct requests cost twice as much as the budget reserves for them.
            fallback=not dollars,
        )
    return members[0] if len(members) == 1 else labelers.Fleet(members)
