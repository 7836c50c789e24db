"""Greedy search that reads several tokens at once, on suspicion: drafts, here from the source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from transduce import tree
from transduce.search.hypotheses import Hypotheses
from transduce.search.interface import SearchBlueprint, require_room
from transduce.search.scorer import Scorer, quote
from transduce.search.top import refuse_nan, top


class Certain(NamedTuple):
    """Tokens of an answer that are certain, and their log-probabilities."""

    tokens: list[int]
    log_probs: list[float]


Propose = Callable[[list[int], int], list[int]]  # answer so far, most tokens -> a draft


class DraftedSearch(SearchBlueprint):
    """Finds what greedy search finds, in fewer steps where drafts are right.

    A draft is read all at once and kept up to the first token that greedy search would not take.
    Sources are answered one at a time.
    """

    span: PositiveInt = 16
    """tokens to read on suspicion, at most"""

    @abstractmethod
    def proposers(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"]
    ) -> Iterator[Propose]:
        """Yield what drafts how an answer may go on, for one source after the other."""

    @torch.no_grad()
    def __call__(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"], limit: Int[Tensor, "B"]
    ) -> Hypotheses:
        """Answer one source after the other."""
        found = []
        for answer in self._answers(scorer, memory, prompt, limit):
            parts = list(answer)
            tokens = [token for part in parts for token in part.tokens]
            found.append(Certain(tokens, [step for part in parts for step in part.log_probs]))
        return self._collect(found, limit.device)

    @torch.no_grad()
    def unfold(
        self,
        scorer: Scorer,
        memory: Any,
        prompt: Int[Tensor, "1 P"],
        limit: Int[Tensor, "1"],
        keys: Int[Tensor, "1"] | None = None,
    ) -> Iterator[list[int]]:
        """Yield the answer to one source, as many tokens at a time as become certain at once."""
        for answer in self._answers(scorer, memory, prompt, limit):
            yield from (part.tokens for part in answer)

    def _answers(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"], limit: Int[Tensor, "B"]
    ) -> Iterator[Iterator[Certain]]:
        """Yield the growing answer to each source."""
        require_room(limit)
        drafts, state = self.proposers(scorer, memory, prompt), scorer.start(memory)
        for row, (most, propose) in enumerate(zip(limit.tolist(), drafts, strict=True)):
            alone = tree.keep(state, torch.tensor([row], device=limit.device), 1)
            yield self._answer(scorer, alone, prompt[row], propose, most)

    def _answer(
        self, scorer: Scorer, state: Any, prompt: Int[Tensor, "T"], propose: Propose, most: int
    ) -> Iterator[Certain]:
        """Yield the answer to one source part by part."""
        answer: list[int] = []
        unread, going = prompt.tolist(), True  # unread: certain, and not in the state yet
        while going:
            draft: list[int] = []
            if not answer or len(unread) <= self.span:
                draft = propose(answer, most - len(answer) - 1)
            # else drafts failed again and again: let the state catch up
            read = torch.tensor([unread + draft], device=prompt.device)
            log_probs, after = scorer.extend(read, state)
            part, going = self._check(draft, *top(log_probs[0, len(unread) - 1 :], 1))
            answer += part.tokens
            going = going and len(answer) < most
            if len(part.tokens) > len(draft):
                state, unread = after, part.tokens[-1:]
            else:  # the state has read what is wrong; go on from the one before
                unread = unread + part.tokens
            yield part

    def _check(
        self, draft: list[int], values: Float[Tensor, "T 1"], ids: Int[Tensor, "T 1"]
    ) -> tuple[Certain, bool]:
        """Return the draft as far as it is right with the token behind, and whether to go on."""
        refuse_nan(values)
        found = Certain([], [])
        for place, (value, token) in enumerate(zip(values.tolist(), ids.tolist(), strict=True)):
            if value[0] == -torch.inf:
                return found, False
            found.tokens.extend(token)
            found.log_probs.extend(value)
            if token[0] == self.eos:
                return found, False
            if draft[place : place + 1] != token:
                break
        return found, True

    def _collect(self, answers: Sequence[Certain], device: torch.device) -> Hypotheses:
        """Return one hypothesis for each source, scored by its log-probability."""
        tokens = [torch.tensor(answer.tokens, dtype=torch.long) for answer in answers]
        steps = [torch.tensor(answer.log_probs) for answer in answers]
        lengths = torch.tensor([[len(row)] for row in tokens], device=device)
        token_log_probs = pad_sequence(steps, batch_first=True)[:, None].to(device)
        total = token_log_probs.sum(2).masked_fill(lengths == 0, -torch.inf)
        return Hypotheses(
            tokens=pad_sequence(tokens, True, self.eos)[:, None].to(device),
            lengths=lengths,
            finished=torch.tensor([[self.eos in row] for row in tokens], device=device),
            scores=total,
            log_probs=total,
            token_log_probs=token_log_probs,
        )


class Draft(DraftedSearch):
    """Drafts are spans of the source: for answers that repeat much of it.

    What follows in the source on the last tokens of the answer is the draft (aggressive decoding:
    Sun 2021, Ge 2022; any span by n-grams: Saxena 2023, Yang 2023).
    """

    shares: ClassVar[bool] = True

    kind: Literal["draft"] = "draft"
    match: PositiveInt = 2
    """last tokens of the answer that must stand in the source, for what follows to be a draft"""

    def proposers(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"]
    ) -> Iterator[Propose]:
        """Yield what finds drafts in each source."""
        sources = quote(scorer, memory)
        for row, length in enumerate(sources.lengths.tolist()):
            yield partial(self._propose, sources.data[row, :length].tolist())

    def _propose(self, source: list[int], answer: list[int], most: int) -> list[int]:
        """Return the source's beginning, or what follows there on the end of the answer.

        Where several places match, it is the longest match, and of equal ones the first.
        """
        place = 0
        if answer:
            longest, place = self.match - 1, len(source)
            for end in range(self.match, len(source)):
                size = _same(source, end, answer)
                if size > longest:
                    longest, place = size, end
        return source[place : place + min(self.span, most)]


def _same(source: list[int], end: int, answer: list[int]) -> int:
    """Return how many symbols before ``end`` of the source are the last ones of the answer."""
    size, most = 0, min(end, len(answer))
    while size < most and source[end - 1 - size] == answer[-1 - size]:
        size += 1
    return size
