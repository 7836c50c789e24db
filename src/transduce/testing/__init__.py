"""The laws of scorers and searches, for anybody's model.

Three lines check a model of one's own::

    sources = {"source": Sequences.stack([torch.tensor([4, 5, 2]), torch.tensor([5, 2])])}
    check_scorer(model, sources, torch.tensor([[1, 4, 5], [1, 5, 5]]))
    check_search(Beam(), model, sources, torch.ones(2, 1, dtype=torch.long), torch.tensor([9, 9]))

``tokens`` has a row for every source; two sources of different lengths and three tokens are the
least that says anything, and the rows should differ. Models must be in evaluation mode. Every law
raises AssertionError where it is broken.
"""

from __future__ import annotations

from transduce.testing.scorers import (
    check_action,
    check_batch_mates,
    check_causal,
    check_join,
    check_keep,
    check_no_shared_storage,
    check_normalised,
    check_persistent,
    check_reorder,
    check_scorer,
    check_scores,
    check_widen,
)
from transduce.testing.searches import (
    brute_force,
    check_asked_seldom,
    check_beam_exact,
    check_beam_one_is_greedy,
    check_draft_is_greedy,
    check_exact,
    check_hypotheses,
    check_refill,
    check_search,
    check_search_batch_mates,
    check_search_matches_forced,
    check_unfold,
)

__all__ = [
    "brute_force",
    "check_action",
    "check_asked_seldom",
    "check_batch_mates",
    "check_beam_exact",
    "check_beam_one_is_greedy",
    "check_causal",
    "check_draft_is_greedy",
    "check_exact",
    "check_hypotheses",
    "check_join",
    "check_keep",
    "check_no_shared_storage",
    "check_normalised",
    "check_persistent",
    "check_refill",
    "check_reorder",
    "check_scorer",
    "check_scores",
    "check_search",
    "check_search_batch_mates",
    "check_search_matches_forced",
    "check_unfold",
    "check_widen",
]
