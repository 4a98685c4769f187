"""distilabel: a pipeline with ``ChatGeneration`` over ``OpenAILLM``, batches as large as in flight.

Its steps are processes of their own: their processor time is counted, their memory is not.
"""

from __future__ import annotations

import os
from importlib import metadata

from measuring import MAX_TOKENS, MODEL, Measured, arguments, read_bodies

os.environ |= {"HF_HUB_OFFLINE": "1", "DISTILABEL_LOG_LEVEL": "WARNING"}

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import ChatGeneration


def main() -> None:
    args = arguments()
    measured = Measured(args)
    rows = [{"messages": body["messages"]} for body in read_bodies(args)]
    with measured:
        with Pipeline(name="throughput", cache_dir=args.scratch) as pipeline:
            load = LoadDataFromDicts(data=rows, batch_size=args.in_flight)
            label = ChatGeneration(
                llm=OpenAILLM(
                    model=MODEL,
                    base_url=args.url,
                    api_key="none",
                    generation_kwargs={"max_new_tokens": MAX_TOKENS, "temperature": 0.0},
                ),
                input_batch_size=args.in_flight,
            )
            load >> label
        answered = pipeline.run(use_cache=False)["default"]["train"]
    measured.report(
        sum(text is not None for text in answered["generation"]),
        distilabel=metadata.version("distilabel"),
        openai=metadata.version("openai"),
    )


if __name__ == "__main__":
    main()
