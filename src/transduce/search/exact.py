"""Exact search: the best hypothesis there is, and a proof of it."""

from __future__ import annotations

import time
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from transduce import tree
from transduce.search.hypotheses import Hypotheses, LengthNormalisation, PowerNormalisation
from transduce.search.interface import SearchBlueprint, require_room
from transduce.search.scorer import Scorer
from transduce.search.top import rank, refuse_nan

TOLERANCE: Final = 1e-4  # of a score: what one string may differ by when it is read in two ways


class Exact(SearchBlueprint):
    """Finds the hypothesis with the highest score, and proves it (Stahlberg & Byrne 2019).

    Goes depth first, the likeliest token first. Log-probabilities only fall as a string grows, so a
    prefix whose ``normalisation.bound`` is no higher than the best that has finished is left alone,
    with all that begins with it. Of equal hypotheses the one that is met first is taken.

    ``Hypotheses.bound`` is what no finished hypothesis exceeds: the best score itself where that is
    proven, and more where the budget ended before; the difference is the gap that is left. Needs a
    scorer whose states persist (``start`` without a capacity).
    """

    kind: Literal["exact"] = "exact"
    n_best: PositiveInt = 1
    """hypotheses of each source to return"""
    normalisation: LengthNormalisation = PowerNormalisation(exponent=0.0)
    """how hypotheses of different lengths compare; plain log-probability if left out"""
    nodes: PositiveInt = 10_000
    """budget: prefixes to read for each source, besides the empty one"""
    seconds: PositiveFloat | None = None
    """budget: time for each source, which makes answers depend on the machine; null for no end"""
    width: PositiveInt = 16
    """prefixes to read side by side; more are quicker to read, and leave a little less alone"""

    def with_answers(self, count: int) -> Exact:
        """Return the search for at least the ``count`` best."""
        return self.model_copy(update={"n_best": max(self.n_best, count)})

    @torch.no_grad()
    def __call__(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"], limit: Int[Tensor, "B"]
    ) -> Hypotheses:
        """Search source after source."""
        require_room(limit)
        log_probs, state = scorer.extend(prompt, scorer.start(memory))
        found = []
        for source, most in enumerate(limit.tolist()):
            own = tree.keep(state, torch.tensor([source], device=prompt.device), 1)
            hunt = _Hunt(self, most, prompt.device)
            hunt.note([_EMPTY], log_probs[source : source + 1, -1], own)
            hunt.go(scorer)
            found.append(_Found(hunt.best(), hunt.bound))
        return _lay_out(found, self.n_best, self.eos, limit.device)


def search_errors(found: Hypotheses, exact: Hypotheses) -> Bool[Tensor, "B"]:
    """Return for which sources a search missed a better hypothesis, which exact search found.

    Both must have ranked by the same score. Where exact search has proven nothing, False means that
    no error is known.
    """
    better = exact.scores[:, 0] > found.scores[:, 0] + TOLERANCE
    return exact.finished[:, 0] & (better | ~found.finished[:, 0])


class _Prefix(NamedTuple):
    """A string and the log-probability of each of its tokens."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    total: float


_EMPTY: Final = _Prefix((), (), 0.0)


class _Branch(NamedTuple):
    """A prefix that was read, and its continuations that may pay, best first."""

    prefix: _Prefix
    state: Any
    row: int  # of the prefix in the state
    tokens: list[int]
    log_probs: list[float]
    bounds: list[float]

    def child(self) -> _Prefix:
        """Return the best continuation, which from now on is none of them."""
        token, log_prob, _ = self.tokens.pop(), self.log_probs.pop(), self.bounds.pop()
        return _longer(self.prefix, token, log_prob)


def _longer(prefix: _Prefix, token: int, log_prob: float) -> _Prefix:
    tokens, log_probs, total = prefix
    return _Prefix((*tokens, token), (*log_probs, log_prob), total + log_prob)


class _Hunt:
    """The search for the best hypothesis of one source."""

    def __init__(self, search: Exact, limit: int, device: torch.device) -> None:
        self.search, self.limit, self.device = search, limit, device
        self.begun, self.read = time.monotonic(), 0
        self.branches: list[_Branch] = []  # a stack; what is to be read next comes last
        self.finished: list[tuple[float, _Prefix]] = []  # the n best and their scores, best first
        self.greedy = True  # so far it has followed the likeliest tokens, and they have not ended
        self.cut = _EMPTY  # the longest, then likeliest, string that has not finished

    @property
    def threshold(self) -> float:
        """What a hypothesis has to exceed to be worth anything."""
        full = len(self.finished) == self.search.n_best
        return self.finished[-1][0] if full else -torch.inf

    @property
    def bound(self) -> float:
        """What no finished hypothesis of this source exceeds."""
        known = [score for score, _ in self.finished[:1]]
        return max(known + [branch.bounds[-1] for branch in self.branches], default=-torch.inf)

    def best(self) -> list[tuple[float, _Prefix, bool]]:
        """Return the best hypotheses with their scores and whether they have finished."""
        if self.finished or not self.cut.tokens:
            return [(score, prefix, True) for score, prefix in self.finished]
        return [(self._score(self.cut), self.cut, False)]

    def go(self, scorer: Scorer) -> None:
        """Read prefixes until none could be better than what was found, or the budget ends."""
        search = self.search
        while self.branches and self.read < search.nodes:
            if search.seconds is not None and time.monotonic() - self.begun > search.seconds:
                break
            # A good hypothesis lets most prefixes alone, so that the first is straight ahead.
            width = 1 if self.greedy else search.width
            chosen = self._next(min(width, search.nodes - self.read))
            prefixes = [prefix for _, prefix in chosen]
            state = _gather([branch for branch, _ in chosen])
            last = torch.tensor([[prefix.tokens[-1]] for prefix in prefixes])
            log_probs, state = scorer.extend(last.to(self.device), state)
            self.read += len(chosen)
            self.note(prefixes, log_probs[:, -1], state)

    def note(self, prefixes: list[_Prefix], log_probs: Float[Tensor, "n V"], state: Any) -> None:
        """Note what may follow these prefixes, which are the rows of the state."""
        refuse_nan(log_probs)
        values = log_probs.double().cpu()
        self.greedy &= bool(values[0].argmax() != self.search.eos)
        for prefix, value in zip(prefixes, values[:, self.search.eos].tolist(), strict=True):
            self._finish(_longer(prefix, self.search.eos, value))
        values[:, self.search.eos] = -torch.inf
        for row in reversed(range(len(prefixes))):  # the first is to be on top of the stack
            self._branch(prefixes[row], values[row], state, row)
        # A better hypothesis makes branches worthless that were worth reading before.
        self.branches = [x for x in self.branches if x.bounds and x.bounds[-1] > self.threshold]

    def _finish(self, prefix: _Prefix) -> None:
        score = self._score(prefix)
        if score > self.threshold:
            self.finished.append((score, prefix))
            self.finished.sort(key=lambda known: -known[0])  # of equal ones the first stays first
            del self.finished[self.search.n_best :]

    def _branch(self, prefix: _Prefix, values: Float[Tensor, "V"], state: Any, row: int) -> None:
        length = len(prefix.tokens) + 1
        value, token = values.max(0)
        if not self.finished and value > -torch.inf:
            longer = _longer(prefix, int(token), float(value))
            self.cut = max(longer, self.cut, key=lambda x: (len(x.tokens), x.total))
        if length == self.limit or value == -torch.inf:
            self.greedy = False
            return
        bounds = self.search.normalisation.bound(prefix.total + values, torch.tensor(self.limit))
        ids = (bounds > self.threshold).nonzero()[:, 0]
        # They are taken from the end of the lists, so that the best comes last.
        order = ids[rank(values[ids])[1]].flip(0)
        lists = order.tolist(), values[order].tolist(), bounds[order].tolist()
        self.branches.append(_Branch(prefix, state, row, *lists))

    def _next(self, count: int) -> list[tuple[_Branch, _Prefix]]:
        """Take the next prefixes from the top of the stack."""
        chosen: list[tuple[_Branch, _Prefix]] = []
        for branch in reversed(self.branches):
            while branch.bounds and branch.bounds[-1] > self.threshold and len(chosen) < count:
                chosen.append((branch, branch.child()))
            if len(chosen) == count:
                break
        return chosen

    def _score(self, prefix: _Prefix) -> float:
        total = torch.tensor(prefix.total, dtype=torch.float64)
        length = torch.tensor(len(prefix.tokens))
        return float(self.search.normalisation.score(total, length))


def _gather(branches: list[_Branch]) -> Any:
    """Return the states of prefixes of one source, in order, as rows of one state."""
    parts: list[Any] = []
    for _, group in groupby(branches, key=lambda branch: id(branch.state)):
        same = list(group)
        rows, shared = [branch.row for branch in same], slice(0 if parts else 1)

        # What belongs to the source is the same in all parts: the first brings it.
        def take(
            leaf: Tensor, per_source: bool, rows: list[int] = rows, of: slice = shared
        ) -> Tensor:
            return leaf[of] if per_source else leaf[rows]

        parts.append(tree.map_leaves(same[0].state, take))
    return tree.join(parts) if len(parts) > 1 else parts[0]


class _Found(NamedTuple):
    """What is known of a source; the states of what was not read any more are not kept."""

    best: list[tuple[float, _Prefix, bool]]  # score, string, and whether it has finished
    bound: float


def _lay_out(found: list[_Found], n_best: int, eos: int, device: torch.device) -> Hypotheses:
    """Return what was found for each source as tensors."""
    size = max((len(prefix.tokens) for best, _ in found for _, prefix, _ in best), default=0)
    shape = len(found), n_best
    tokens, token_log_probs = torch.full((*shape, size), eos), torch.zeros(*shape, size)
    scores, log_probs = torch.full(shape, -torch.inf), torch.full(shape, -torch.inf)
    lengths, finished = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    for row, (best, _) in enumerate(found):
        for number, (score, prefix, done) in enumerate(best):
            place, length = (row, number), len(prefix.tokens)
            tokens[place][:length] = torch.tensor(prefix.tokens)
            token_log_probs[place][:length] = torch.tensor(prefix.log_probs)
            scores[place], log_probs[place] = score, prefix.total
            lengths[place], finished[place] = length, done
    bound = torch.tensor([bound for _, bound in found])
    whole = Hypotheses(tokens, lengths, finished, scores, log_probs, token_log_probs, bound=bound)
    return tree.map_leaves(whole, lambda leaf, _: leaf.to(device))
