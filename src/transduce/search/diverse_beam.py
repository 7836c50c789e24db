"""Diverse beam search: groups of hypotheses that keep away from each other."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from transduce.search.beam import Beam, BeamNotes
from transduce.search.hypotheses import Hypotheses, LengthNormalisation, PowerNormalisation
from transduce.search.notes import room_for, with_room
from transduce.search.paths import Taken, best_first
from transduce.search.stepwise import Move, StepwiseSearch
from transduce.sequences import positions

NOBODY = -1  # the token of a row in which there is no hypothesis


class DiverseNotes(NamedTuple):
    """What a diverse beam search knows of its sources."""

    step: Int[Tensor, "A"]
    going: Bool[Tensor, "A G"]  # False: the group is done
    read: Int[Tensor, "A T K"]  # the tokens that every row took
    groups: tuple[BeamNotes, ...]


class Answer(NamedTuple):
    """What a group says."""

    length: Int[Tensor, "A 1"]  # 0: it has nothing new
    finished: Bool[Tensor, "A 1"]
    tokens: Int[Tensor, "A T 1"]
    log_probs: Float[Tensor, "A T 1"]


class DiverseBeam(StepwiseSearch):
    """Beam searches side by side, each kept away from what those before it do (Vijayakumar 2018).

    At every step the groups choose in turn, and a token costs a group ``penalty`` for every
    hypothesis of an earlier group that took it at this step (Hamming diversity). The first group is
    thus a beam search of its own. Each group answers with its best hypothesis that no group before
    it has given, so there are ``groups`` answers. Scores have no penalty in them.
    """

    kind: Literal["diverse_beam"] = "diverse_beam"
    groups: PositiveInt = 5
    """answers to find, each by a beam of its own"""
    width: PositiveInt = 2
    """hypotheses of each group that live side by side"""
    penalty: NonNegativeFloat = 0.5
    """what it costs to take the token of a hypothesis before, in log-probability"""
    normalisation: LengthNormalisation = PowerNormalisation()
    """how finished hypotheses of different lengths compare"""

    @property
    def rows(self) -> int:
        return self.groups * self.width

    @property
    def branches(self) -> int:
        """Number of tokens after each row that it wants to see.

        What earlier groups took may be the best of all, and then nothing of it may be wanted.
        """
        return self.rows + 1

    @property
    def _beam(self) -> Beam:
        """The search of a group."""
        return Beam(width=self.width, n_best=self.width, normalisation=self.normalisation)

    def with_answers(self, count: int) -> DiverseBeam:
        """Return the search so that it has at least ``count`` groups."""
        return self.model_copy(update={"groups": max(self.groups, count)})

    def begin(self, limit: Int[Tensor, "A"], keys: Int[Tensor, "A"]) -> DiverseNotes:
        """Return empty notes of every group."""
        groups = tuple(self._beam.begin(limit, keys) for _ in range(self.groups))
        going = limit.new_ones(len(limit), self.groups).bool()
        read = limit.new_zeros(len(limit), room_for(limit), self.rows)
        return DiverseNotes(torch.zeros_like(limit), going, read, groups)

    def weigh(
        self, notes: DiverseNotes, values: Float[Tensor, "A K M"], ids: Int[Tensor, "A K M"]
    ) -> Move:
        """Let the groups choose in turn."""
        parents, tokens, groups, going = [], [], [], []
        taken = ids.new_full((len(ids), 0), NOBODY)
        for number, group in enumerate(notes.groups):
            rows = slice(number * self.width, (number + 1) * self.width)
            # A group that is done has no hypothesis left that could go on.
            own = values[:, rows].masked_fill(~notes.going[:, number, None, None], -torch.inf)
            move = self._beam.weigh(
                group, own - self._cost(ids[:, rows], taken[:, None]), ids[:, rows]
            )
            parents.append(move.parents + rows.start)
            tokens.append(move.tokens)
            groups.append(move.notes)
            going.append(notes.going[:, number] & move.going)
            lives = move.notes.live > -torch.inf
            taken = torch.cat([taken, move.tokens.masked_fill(~lives, NOBODY)], 1)
        read = with_room(notes.read, notes.step)
        read[torch.arange(len(read), device=read.device), notes.step] = taken
        after = DiverseNotes(notes.step + 1, torch.stack(going, 1), read, tuple(groups))
        return Move(after, after.going.any(1), torch.cat(parents, 1), torch.cat(tokens, 1))

    def collect(self, notes: DiverseNotes) -> Hypotheses:
        """Let the groups answer in turn, each with the best that is new."""
        found = [self._beam.collect(group) for group in notes.groups]
        size = max(one.tokens.shape[2] for one in found)
        answers: list[Answer] = []
        for number, one in enumerate(found):
            room = (0, size - one.tokens.shape[2])
            ids = F.pad(one.tokens, room, value=self.eos)
            lengths = one.lengths
            for answer in answers:
                same = (ids == answer.tokens.mT).all(2) & (one.lengths == answer.length)
                lengths = lengths.masked_fill(same, 0)
            best = (lengths > 0).int().argmax(1, keepdim=True)
            within = best[:, :, None].expand(-1, -1, size)
            tokens = ids.gather(1, within).mT
            cost = self._cost(tokens, notes.read[:, :size, : number * self.width])
            log_probs = F.pad(one.token_log_probs, room).gather(1, within).mT + cost
            length = lengths.gather(1, best)
            finished = one.finished.gather(1, best) & (length > 0)
            answers.append(Answer(length, finished, tokens, log_probs))
        return self._ranked(answers)

    def _ranked(self, answers: list[Answer]) -> Hypotheses:
        """Return the answers of all groups, best first, by scores without penalty."""
        length = torch.cat([answer.length for answer in answers], 1)
        taken = Taken(
            torch.cat([answer.tokens for answer in answers], 2),
            torch.cat([answer.log_probs for answer in answers], 2),
        )
        beyond = positions(taken.tokens.shape[1], length.device)[..., None] >= length[:, None]
        total = taken.log_probs.masked_fill(beyond, 0.0).sum(1)
        finished = torch.cat([answer.finished for answer in answers], 1)
        scores = self.normalisation.score(total, length)
        return best_first(taken, length, finished, self.eos, scores)

    def _cost(
        self, ids: Int[Tensor, "A R M"], taken: Int[Tensor, "A #R t"]
    ) -> Float[Tensor, "A R M"]:
        """Return what it costs to take these tokens after those that were taken."""
        return (ids[..., None] == taken[:, :, None]).sum(3) * self.penalty
