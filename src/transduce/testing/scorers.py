"""The laws of scorers: a scorer is an action of token strings on states."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from transduce import tree
from transduce.search.scorer import Scorer
from transduce.sequences import Sequences
from transduce.testing.compare import TOLERANCE, Sources, alone, pick, require, same


@torch.no_grad()
def check_scorer(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """Check all laws that hold for every scorer."""
    check_scores(scorer, sources, tokens)
    check_action(scorer, sources, tokens)
    check_causal(scorer, sources, tokens)
    check_widen(scorer, sources, tokens)
    check_reorder(scorer, sources, tokens)
    check_keep(scorer, sources, tokens)
    check_batch_mates(scorer, sources, tokens)
    check_persistent(scorer, sources, tokens)
    check_no_shared_storage(scorer, sources, tokens)
    check_join(scorer, sources, tokens)


@torch.no_grad()
def check_scores(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """Log-probabilities are never NaN, never above 0; a dead state answers -inf."""
    log_probs = _read(scorer, sources, tokens)
    require(not log_probs.isnan().any(), "scores: the scorer answers NaN")
    highest = log_probs.max().item()
    require(highest <= TOLERANCE, f"scores: a log-probability is {highest}, which is above 0")


@torch.no_grad()
def check_normalised(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """The probabilities of what may follow add up to 1, as in every model (not every scorer)."""
    total = _read(scorer, sources, tokens).logsumexp(-1)
    same(total, torch.zeros_like(total), "normalised: the probabilities do not add up to 1")


@torch.no_grad()
def check_action(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """Reading ``xy`` is reading ``x``, then ``y``, at any cut, with and without a capacity."""
    memory = scorer.encode(sources)
    whole, size = _read(scorer, sources, tokens), tokens.shape[1]
    ways = [[cut, size - cut] for cut in range(1, size)] + [[1] * size]
    for capacity, cuts in itertools.product((None, size, size + 3), ways):
        state = scorer.start(memory, 1, capacity)
        parts = []
        for part in torch.split(tokens, cuts, 1):
            log_probs, state = scorer.extend(part, state)
            parts.append(log_probs)
        law = f"action: read in parts of {cuts} tokens (capacity {capacity}) is not read at once"
        same(torch.cat(parts, 1), whole, law)


@torch.no_grad()
def check_causal(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """What follows a token does not depend on later tokens."""
    whole = _read(scorer, sources, tokens)
    for cut in range(1, tokens.shape[1]):
        other = (tokens[:, cut:] + 1) % (tokens.max() + 1)
        changed = _read(scorer, sources, torch.cat([tokens[:, :cut], other], 1))
        law = f"causal: tokens after the first {cut} change what is said before them"
        same(changed[:, :cut], whole[:, :cut], law)


@torch.no_grad()
def check_widen(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """Reading in one row and then doubling it is reading in two rows from the start."""
    memory = scorer.encode(sources)
    _, state = scorer.extend(tokens[:, :-1], scorer.start(memory))
    last, pairs = tokens[:, -1:].repeat_interleave(2, 0), tokens.repeat_interleave(2, 0)
    found, _ = scorer.extend(last, tree.widen(state, 2))
    wanted, _ = scorer.extend(pairs, scorer.start(memory, 2))
    same(found, wanted[:, -1:], "widen: rows made by tree.widen differ from rows of start")


@torch.no_grad()
def check_reorder(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """A reordered state is the state after reading the reordered tokens."""
    memory, cut = scorer.encode(sources), tokens.shape[1] // 2
    pairs = torch.stack([tokens, tokens.roll(1, 0).flip(1)], 1).flatten(0, 1)
    swap_or_copy = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]])
    chosen = swap_or_copy.repeat(len(tokens), 1)[: len(tokens)].to(tokens.device)
    rows = (torch.arange(len(tokens), device=tokens.device)[:, None] * 2 + chosen).flatten()
    for capacity in (None, tokens.shape[1]):
        _, state = scorer.extend(pairs[:, :cut], scorer.start(memory, 2, capacity))
        found, _ = scorer.extend(pairs[:, cut:], tree.reorder(state, rows))
        strings = torch.cat([pairs[rows, :cut], pairs[:, cut:]], 1)
        wanted, _ = scorer.extend(strings, scorer.start(memory, 2))
        law = f"reorder: a reordered state (capacity {capacity}) forgot what its rows had read"
        same(found, wanted[:, cut:], law)


@torch.no_grad()
def check_keep(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """Sources that leave change nothing for those that stay."""
    memory, cut = scorer.encode(sources), tokens.shape[1] // 2
    pairs = torch.stack([tokens, tokens.roll(1, 0).flip(1)], 1)
    stay = torch.arange(1, len(tokens), 2, device=tokens.device)
    for capacity in (None, tokens.shape[1]):
        start = scorer.start(memory, 2, capacity)
        _, state = scorer.extend(pairs[:, :, :cut].flatten(0, 1), start)
        kept = tree.keep(state, stay, 2)
        found, _ = scorer.extend(pairs[stay, :, cut:].flatten(0, 1), kept)
        wanted, _ = scorer.extend(pairs.flatten(0, 1), scorer.start(memory, 2))
        wanted = wanted.view(len(tokens), 2, *wanted.shape[1:])[stay].flatten(0, 1)
        law = f"keep: dropping sources (capacity {capacity}) changes the others"
        same(found, wanted[:, cut:], law)


@torch.no_grad()
def check_join(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """Sources that were read apart, each so far, can be joined and go on together."""
    whole, size = _read(scorer, sources, tokens), tokens.shape[1]
    every = torch.arange(len(tokens), device=tokens.device)
    for capacity in (None, size):
        at, parts = every % (size - 1), []
        for row, read in enumerate(at.tolist()):
            state = scorer.start(scorer.encode(alone(sources, row)), 1, capacity)
            if read:
                _, state = scorer.extend(tokens[row : row + 1, :read], state)
            parts.append(state)
        state, rows = tree.join(parts), every
        for stay in (every, every[1::2]):
            state, rows = tree.keep(state, stay, 1), rows[stay]
            found, state = scorer.extend(tokens[rows, at[rows]][:, None], state)
            law = f"join: joined rows (capacity {capacity}) differ from rows on their own"
            same(found[:, 0], whole[rows, at[rows]], law)
            at = at + 1


@torch.no_grad()
def check_batch_mates(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """What is said about a source depends neither on the padding nor on the rest of the batch."""
    whole = _read(scorer, sources, tokens)
    backwards = torch.arange(len(tokens), device=tokens.device).flip(0)
    turned = _read(scorer, pick(sources, backwards), tokens.flip(0))
    same(turned.flip(0), whole, "batch mates: the order of the batch matters")
    dirty = _read(scorer, {name: _dirty(source) for name, source in sources.items()}, tokens)
    same(dirty, whole, "batch mates: values or amount of the padding matter")
    for row in range(len(tokens)):
        single = _read(scorer, alone(sources, row), tokens[row : row + 1])
        same(single, whole[row : row + 1], f"batch mates: source {row} reads differently alone")


@torch.no_grad()
def check_persistent(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """A state of no fixed capacity may be extended again and again."""
    first = scorer.start(scorer.encode(sources))
    before, second = scorer.extend(tokens[:, :1], first)
    after, _ = scorer.extend(tokens[:, 1:], second)
    scorer.extend(tokens[:, 1:].flip(1), second)
    law = "persistent: extending a state changed it, though start was given no capacity"
    same(scorer.extend(tokens[:, 1:], second)[0], after, law)
    same(scorer.extend(tokens[:, :1], first)[0], before, law)


@torch.no_grad()
def check_no_shared_storage(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> None:
    """No two tensors of a state share memory: in-place writing and export would tie them."""
    memory = scorer.encode(sources)
    for capacity in (None, tokens.shape[1]):
        state = scorer.start(memory, 1, capacity)
        _distinct(state, f"start (capacity {capacity})")
        _distinct(scorer.extend(tokens, state)[1], f"extend (capacity {capacity})")


def _read(scorer: Scorer, sources: Sources, tokens: Int[Tensor, "B T"]) -> Tensor:
    log_probs, _ = scorer.extend(tokens, scorer.start(scorer.encode(sources)))
    return log_probs


def _distinct(state: Any, where: str) -> None:
    seen: set[int] = set()
    for leaf, _ in tree.leaves(state):
        if leaf.numel():
            storage = leaf.untyped_storage().data_ptr()
            require(storage not in seen, f"storage: two tensors of the state of {where} share it")
            seen.add(storage)


def _dirty(source: Sequences) -> Sequences:
    """Return the same source with more padding and other values in it."""
    data = torch.cat([source.data, source.data[:, :1], source.data[:, :1]], 1)
    beyond = ~Sequences(data, source.lengths).mask()
    filling = data[:, :1] if not data.is_floating_point() else data[:, :1] + 100.0
    beyond = beyond.view(*beyond.shape, *[1] * (data.dim() - 2))
    return Sequences(torch.where(beyond, filling, data), source.lengths)
