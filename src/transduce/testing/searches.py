"""The laws of searches: whatever the scorer, the answer is its own and nobody else's."""

from __future__ import annotations

import itertools
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.asking import STEPS, asking_every
from transduce.problem import Problem
from transduce.search.beam import Beam
from transduce.search.draft import DraftedSearch
from transduce.search.exact import Exact
from transduce.search.greedy import Greedy
from transduce.search.hypotheses import Hypotheses, LengthNormalisation, PowerNormalisation
from transduce.search.interface import Batch, SearchBlueprint
from transduce.search.score import force
from transduce.search.scorer import Scorer
from transduce.search.stepwise import StepwiseSearch, answers
from transduce.testing.compare import TOLERANCE, Sources, alone, pick, require, same

MEAN: Final = PowerNormalisation()
PLAIN: Final = PowerNormalisation(exponent=0.0)


@torch.no_grad()
def check_search(
    search: SearchBlueprint,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
) -> None:
    """Check all laws that hold for every search."""
    check_hypotheses(search, scorer, sources, prompt, limit)
    check_search_matches_forced(search, scorer, sources, prompt, limit)
    check_search_batch_mates(search, scorer, sources, prompt, limit)
    check_unfold(search, scorer, sources, prompt, limit)
    if isinstance(search, StepwiseSearch):
        check_refill(search, scorer, sources, prompt, limit)
        check_asked_seldom(search, scorer, sources, prompt, limit)


@torch.no_grad()
def check_hypotheses(
    search: SearchBlueprint,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
) -> None:
    """Hypotheses end with eos exactly if finished, keep the limit, and come best first.

    They differ, unless the search says that they may not.
    """
    found = search(scorer, scorer.encode(sources), prompt, limit)
    require(not found.scores.isnan().any(), "hypotheses: a score is NaN")
    for row, strings in enumerate(_strings(found)):
        real = [string for string in strings if string]
        twins = search.distinct and len(set(real)) < len(real)
        require(not twins, f"hypotheses: source {row} has twins: {strings}")
        order = []
        for rank, string in enumerate(strings):
            place = f"hypotheses: number {rank} of source {row}, {string},"
            finished, score = bool(found.finished[row, rank]), float(found.scores[row, rank])
            require(len(string) <= limit[row], f"{place} is longer than {limit[row]}")
            require((search.eos in string) == finished, f"{place} has finished: {finished}")
            require(search.eos not in string[:-1], f"{place} goes on behind eos")
            require(bool(string) == (score > -torch.inf), f"{place} scores {score}")
            if finished and found.bound is not None:
                require(score <= found.bound[row], f"{place} is above the bound")
            order.append((finished, score))
        best_first = sorted(order, reverse=True)
        require(order == best_first, f"hypotheses: source {row} has them in the order {order}")


@torch.no_grad()
def check_search_matches_forced(
    search: SearchBlueprint,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
) -> None:
    """The score of a hypothesis is the score of the same tokens when they are given."""
    memory = scorer.encode(sources)
    found = search(scorer, memory, prompt, limit)
    forced = force(scorer, memory, prompt, found.tokens, found.lengths)
    same(found.token_log_probs, forced, "forced: log-probabilities of tokens differ")
    total = forced.sum(2).masked_fill(found.lengths == 0, -torch.inf)
    same(found.log_probs, total, "forced: log-probabilities of hypotheses differ")


@torch.no_grad()
def check_search_batch_mates(
    search: SearchBlueprint,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
    sizes: tuple[int, ...] = (1,),
) -> None:
    """A source gets the same answer in the batch turned round and in batches sorted by length."""
    whole = search(scorer, scorer.encode(sources), prompt, limit)
    turned = torch.arange(len(limit), device=limit.device).flip(0)
    by_length = next(iter(sources.values())).lengths.argsort()
    batches = [turned, *itertools.chain.from_iterable(map(by_length.split, sizes))]
    for rows in batches:
        part = pick(sources, rows)
        found = search(scorer, scorer.encode(part), prompt[rows], limit[rows])
        _same_answers(found, whole, rows)


@torch.no_grad()
def check_unfold(
    search: SearchBlueprint,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
) -> None:
    """The parts of an answer that are shown as it grows make the answer, or none are shown."""
    shown = []
    for row in range(len(limit)):
        memory, rows = scorer.encode(alone(sources, row)), slice(row, row + 1)
        try:
            shown.append(list(search.unfold(scorer, memory, prompt[rows], limit[rows])))
        except Problem:
            return  # it decides on whole answers
    wanted = _strings(search(scorer, scorer.encode(sources), prompt, limit))
    for row, (parts, answer) in enumerate(zip(shown, wanted, strict=True)):
        law = f"unfold: source {row} is shown {parts}, and its answer is {answer[0]}"
        require(tuple(itertools.chain.from_iterable(parts)) == answer[0], law)


@torch.no_grad()
def check_refill(
    search: StepwiseSearch,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
    size: int = 2,
) -> None:
    """Sources that take the places of answered ones get the answers they get in one batch."""
    keys = torch.arange(len(limit), device=limit.device)
    together = Batch(scorer.encode(sources), prompt, limit, keys)
    whole = next(answers(search, scorer, [together], len(limit)))
    cuts = torch.split(torch.arange(len(limit), device=limit.device), size)
    batches = (
        Batch(scorer.encode(pick(sources, rows)), prompt[rows], limit[rows], rows) for rows in cuts
    )
    found = list(answers(search, scorer, batches, 2 * size))
    require(len(found) == len(cuts), f"refill: {len(found)} batches answered of {len(cuts)}")
    for part, rows in zip(found, cuts, strict=True):
        _same_answers(part, whole, rows)


@torch.no_grad()
def check_asked_seldom(
    search: StepwiseSearch,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
) -> None:
    """Sources go on until somebody looks whether they are answered, as on a GPU, for nothing."""
    whole = search(scorer, scorer.encode(sources), prompt, limit)
    with asking_every(STEPS):
        found = search(scorer, scorer.encode(sources), prompt, limit)
    for row, (ours, theirs) in enumerate(zip(_strings(found), _strings(whole), strict=True)):
        law = f"asked seldom: source {row} gets {ours}, and asked at each step {theirs}"
        require(ours == theirs, law)
    same(found.scores, whole.scores, "asked seldom: scores differ")
    same(found.token_log_probs, whole.token_log_probs, "asked seldom: log-probabilities differ")
    require(torch.equal(found.finished, whole.finished), "asked seldom: other answers have ended")


@torch.no_grad()
def check_beam_one_is_greedy(
    scorer: Scorer, sources: Sources, prompt: Int[Tensor, "B P"], limit: Int[Tensor, "B"]
) -> None:
    """A beam of width 1 is greedy search."""
    memory = scorer.encode(sources)
    found = Beam(width=1)(scorer, memory, prompt, limit)
    _is_greedy("beam 1", found, Greedy()(scorer, memory, prompt, limit))


@torch.no_grad()
def check_draft_is_greedy(
    search: DraftedSearch,
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
) -> None:
    """Reading drafts finds what greedy search finds."""
    memory = scorer.encode(sources)
    found = search(scorer, memory, prompt, limit)
    _is_greedy("draft", found, Greedy()(scorer, memory, prompt, limit))


def _is_greedy(name: str, found: Hypotheses, greedy: Hypotheses) -> None:
    for row, (ours, theirs) in enumerate(zip(_strings(found), _strings(greedy), strict=True)):
        law = f"{name}: source {row} gets {ours}, from greedy search {theirs}"
        require(ours == theirs, law)
    same(found.log_probs, greedy.log_probs, f"{name}: log-probabilities differ from greedy search")


@torch.no_grad()
def brute_force(
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
    eos: int,
) -> list[dict[tuple[int, ...], float]]:
    """Return the log-probability of every finished string of each source up to its limit."""
    answers = []
    for row, most in enumerate(limit.tolist()):
        memory, begin = scorer.encode(alone(sources, row)), prompt[row : row + 1]
        symbols = scorer.extend(begin, scorer.start(memory))[0].shape[2]
        goes_on = [symbol for symbol in range(symbols) if symbol != eos]
        prefixes = list(itertools.product(goes_on, repeat=most - 1))
        inputs = torch.tensor(prefixes, dtype=torch.long, device=begin.device)
        read = torch.cat([begin.expand(len(prefixes), -1), inputs.view(len(prefixes), -1)], 1)
        log_probs = scorer.extend(read, scorer.start(memory, len(prefixes)))[0]
        steps = log_probs[:, begin.shape[1] - 1 :].tolist()
        found: dict[tuple[int, ...], float] = {}
        for prefix, step in zip(prefixes, steps, strict=True):
            total = 0.0
            for length in range(most):
                found[(*prefix[:length], eos)] = total + step[length][eos]
                if length < most - 1:
                    total += step[length][prefix[length]]
        answers.append(found)
    return answers


@torch.no_grad()
def check_beam_exact(
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
    normalisation: LengthNormalisation = MEAN,
) -> None:
    """A beam that is wide enough for all strings finds the best of them."""
    memory = scorer.encode(sources)
    symbols = scorer.extend(prompt, scorer.start(memory))[0].shape[2]
    width = symbols * (symbols - 1) ** (int(limit.max()) - 1)
    search = Beam(width=width, n_best=min(5, width), normalisation=normalisation)
    found = search(scorer, memory, prompt, limit)
    every = brute_force(scorer, sources, prompt, limit, search.eos)
    _are_the_best(found, every, search.n_best, normalisation)


@torch.no_grad()
def check_exact(
    scorer: Scorer,
    sources: Sources,
    prompt: Int[Tensor, "B P"],
    limit: Int[Tensor, "B"],
    normalisation: LengthNormalisation = PLAIN,
) -> None:
    """Exact search finds what enumeration finds; what it proves on a small budget is true."""
    memory = scorer.encode(sources)
    every = brute_force(scorer, sources, prompt, limit, Exact.eos)
    best = torch.stack([_ranked(known, normalisation)[0] for known in every]).to(limit.device)
    for width, n_best in itertools.product((1, 4), (1, 3)):
        search = Exact(n_best=n_best, width=width, normalisation=normalisation, nodes=1_000_000)
        found = search(scorer, memory, prompt, limit)
        _are_the_best(found, every, n_best, normalisation)
        assert found.bound is not None
        same(found.bound, best, "exact: the best that there is, is not what is proven")
    for nodes in (1, 2, 5, 20, 100):
        search = Exact(nodes=nodes, normalisation=normalisation)
        found = search(scorer, memory, prompt, limit)
        assert found.bound is not None
        true = (found.bound >= best - TOLERANCE).all()
        require(true, f"exact: {found.bound} is proven of {best} with {nodes} nodes")
        low = found.scores[:, 0].masked_fill(~found.finished[:, 0], -torch.inf)
        require((low <= best + TOLERANCE).all(), f"exact: {low} beats enumeration, {best}")


def _are_the_best(
    found: Hypotheses,
    every: list[dict[tuple[int, ...], float]],
    n_best: int,
    normalisation: LengthNormalisation,
) -> None:
    """Compare the finished hypotheses with all that there are."""
    for row, (strings, known) in enumerate(zip(_strings(found), every, strict=True)):
        wanted = _ranked(known, normalisation)[:n_best]
        wanted = wanted[wanted > -torch.inf]
        number = int(found.finished[row].sum())
        law = f"exact: source {row} does not get its best strings"
        require(number == len(wanted), f"{law}: {number} and not {len(wanted)}")
        same(found.scores[row, :number].cpu(), wanted, law)
        log_probs = torch.tensor([known[string] for string in strings[:number]])
        same(found.log_probs[row, :number].cpu(), log_probs, law)


def _ranked(
    known: dict[tuple[int, ...], float], normalisation: LengthNormalisation
) -> Float[Tensor, "N"]:
    """Return the scores of all strings, best first."""
    sizes = torch.tensor([len(string) for string in known])
    scores = normalisation.score(torch.tensor(list(known.values())), sizes)
    return scores.sort(descending=True).values


def _strings(found: Hypotheses) -> list[list[tuple[int, ...]]]:
    """Return the tokens of every hypothesis of every source."""
    return [
        [tuple(tokens[:length]) for tokens, length in zip(*source, strict=True)]
        for source in zip(found.tokens.tolist(), found.lengths.tolist(), strict=True)
    ]


def _same_answers(found: Hypotheses, whole: Hypotheses, rows: Int[Tensor, "M"]) -> None:
    """Compare the answers to some sources with those that the whole batch got."""
    wanted = _strings(whole)
    for row, ours in zip(rows.tolist(), _strings(found), strict=True):
        law = f"batch mates: source {row} gets another answer in a batch of {len(rows)}"
        require(ours == wanted[row], f"{law}: {ours} and not {wanted[row]}")
    same(found.scores, whole.scores[rows], "batch mates: scores depend on the batch")
    equal = torch.equal(found.finished, whole.finished[rows])
    require(equal, "batch mates: whether a hypothesis finished depends on the batch")
