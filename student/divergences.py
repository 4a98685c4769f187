"""How far two distributions over tokens are apart: pure functions of log-probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

__all__ = ["DIVERGENCES", "TeacherTokens", "divergence", "on_teachers_tokens", "top_tokens"]

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")


@dataclass(frozen=True, kw_only=True)
class TeacherTokens:
    """The teacher's distribution over the next token, at each of `n` places of the batch's targets.

    `log_probs`: (n, k), softened by the temperature. `token_ids`: (n, k), the tokens they belong to, or
    None where k is the whole vocabulary in its order. `log_tail`: (n,), the log of the mass of all other
    tokens together, or None where there are no others. `own_losses`: (n,), the teacher's own -log p of
    the targets at temperature 1, with gradient, where the teacher is trained along.
    """

    log_probs: torch.Tensor
    token_ids: torch.Tensor | None = None
    log_tail: torch.Tensor | None = None
    own_losses: torch.Tensor | None = None


def divergence(
    log_p: torch.Tensor, log_q: torch.Tensor, *, kind: str = "forward_kl", beta: float = 0.5
) -> torch.Tensor:
    """Return the divergence of student q from teacher p over the last axis, in nats, >= 0.

    "forward_kl"   KL(p || q) = sum p (log p - log q)         Hinton et al. 2015; covers all of p
    "reverse_kl"   KL(q || p)                                 Gu et al. 2024, "MiniLLM": seeks p's modes
    "jsd"          beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q
                   Agarwal et al. 2024, "On-Policy Distillation of Language Models" (GKD), section 3

    The generalized Jensen-Shannon divergence is at most log 2 for beta = 1/2, and vanishes at both ends:
    jsd / beta tends to the forward KL as beta goes to 0, jsd / (1 - beta) to the reverse KL as beta goes
    to 1. So 0 < beta < 1. Both arguments are normalised log-probabilities over the same outcomes.
    """
    if kind == "forward_kl":
        return _kl(log_p, log_q)
    if kind == "reverse_kl":
        return _kl(log_q, log_p)
    mixed = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * _kl(log_p, mixed) + (1 - beta) * _kl(log_q, mixed)


def on_teachers_tokens(
    logits: torch.Tensor, teacher: TeacherTokens, *, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (log_p, log_q), teacher and student over the same outcomes, (n, k), (n, k + 1) or (n, V).

    `logits`: (n, V), the student's. Where the teacher's k most probable tokens are known, the outcomes
    are these k and one more, "any other token", with the mass that each of the two gives to all the
    rest. Nothing is renormalised and no mass is dropped: both sides add up to 1 and the student is
    penalised for mass in the wrong tail, but not told how to spread it there. Merging outcomes can only
    lower a divergence, so the value is a lower bound, exact where k is the whole vocabulary.
    """
    log_q = (logits / temperature).log_softmax(-1)
    if teacher.token_ids is None:
        return teacher.log_probs, log_q
    known = log_q.gather(-1, teacher.token_ids)
    if teacher.log_tail is None:
        return teacher.log_probs, known
    rest = log_q.scatter(-1, teacher.token_ids, -torch.inf).logsumexp(-1, keepdim=True)
    log_p = torch.cat([teacher.log_probs, teacher.log_tail[:, None]], dim=-1)
    return log_p, torch.cat([known, rest], dim=-1)


def top_tokens(logits: torch.Tensor, k: int, *, temperature: float = 1.0) -> TeacherTokens:
    """Return the `k` most probable tokens of (n, V) logits at `temperature`, and the mass of the rest.

    The tail is summed from the logits themselves, not taken as 1 minus the top: no digits are lost.
    """
    log_probs = (logits / temperature).log_softmax(-1)
    top = log_probs.topk(min(k, logits.shape[-1]), dim=-1)
    if k >= logits.shape[-1]:
        return TeacherTokens(log_probs=top.values, token_ids=top.indices)
    tail = log_probs.scatter(-1, top.indices, -torch.inf).logsumexp(-1)
    return TeacherTokens(log_probs=top.values, token_ids=top.indices, log_tail=tail)


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)
