"""How much texts surprise a small causal language model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.exceptions import CurateError

if TYPE_CHECKING:
    import torch

_BATCH = 16


def perplexities(
    texts: Sequence[str],
    model: str,
    *,
    max_tokens: int = 512,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> list[float | None]:
    """The perplexity of each text: exp of the mean negative log-likelihood per token.

    A token is scored given all before it in the text, the first one given the model's sign for the
    beginning of a text; a model that has none scores from the second on. Only the first ``max_tokens``
    are read.

    Args:
        texts: The texts.
        model: Folder or Hub id of a causal language model that transformers can load.
        max_tokens: Tokens read of each text.
        on_progress: Receives ``done`` and ``total``.

    Returns:
        A number of at least 1 per text; None where no token could be scored.

    Raises:
        CurateError: If the model cannot be loaded, or is none of this kind.
    """
    import torch

    network, tokenizer = _load(model)
    first = tokenizer.bos_token_id
    most = min(max_tokens, int(getattr(network.config, "max_position_embeddings", max_tokens)))
    encoded = []
    for text in texts:
        ids = tokenizer(text[: 64 * most], add_special_tokens=False)["input_ids"]
        encoded.append(([] if first is None else [first]) + ids[: most - (first is not None)])
    found: list[float | None] = [None] * len(texts)
    order = sorted(
        (i for i, ids in enumerate(encoded) if len(ids) > 1), key=lambda i: len(encoded[i])
    )
    done = len(texts) - len(order)
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        with torch.inference_mode():
            means = _mean_losses(network, [encoded[i] for i in places])
        for place, mean in zip(places, means, strict=True):
            found[place] = math.exp(min(mean, 700.0))
        done += len(places)
        if on_progress is not None:
            on_progress({"done": done, "total": len(texts)})
    return found


def _mean_losses(network: Any, batch: Sequence[Sequence[int]]) -> list[float]:
    """Mean negative log-likelihood per scored token, in nats, of sequences of tokens."""
    import torch

    longest = max(map(len, batch))
    device = network.device
    ids = torch.zeros((len(batch), longest), dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for place, each in enumerate(batch):
        ids[place, : len(each)] = torch.tensor(each, device=device)
        mask[place, : len(each)] = 1
    logits: torch.Tensor = network(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    scored = mask[:, 1:]
    means: list[float] = ((losses * scored).sum(1) / scored.sum(1)).tolist()
    return means


def _load(model: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        network: Any = AutoModelForCausalLM.from_pretrained(model)
    except Exception as error:  # the library raises many kinds, of its own and of its transport
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CurateError(
            f"scores.perplexity.model {model!r} cannot be loaded ({reason}): name the folder or the Hub id "
            "of a causal language model, such as HuggingFaceTB/SmolLM2-135M"
        ) from error
    if torch.cuda.is_available():
        network = network.to("cuda")
    return network.eval(), tokenizer
