"""Models that are shared out: each process holds rows of all weights, and of what learns them.

FSDP2 (``torch.distributed.fsdp.fully_shard``; Zhao 2023, Rajbhandari 2020) brings the weights of a
layer together while it computes, and adds up gradients on their way to the process whose rows they
are. All processes have to go through the same layers in the same order, therefore.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.data.batch import Batch
from transduce.models.decoders.convolutional import ConvolutionalDecoder
from transduce.models.decoders.transformer import DecoderLayer, TransformerDecoder
from transduce.models.encoders.convolutional import ConvolutionalEncoder
from transduce.models.encoders.transformer import TransformerEncoder
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.addition import Addition, learned
from transduce.problem import Problem
from transduce.train.fitting import Fitting, out_of_memory
from transduce.train.moving_average import MovingAverage
from transduce.train.objective import Learner, Loss, Moment, ObjectiveBlueprint
from transduce.train.objective.interface import FIRST
from transduce.train.parallel import Sums, Together, columns, heard, talking
from transduce.train.shares import beside, is_shared, own, whole

R = TypeVar("R")

STACKS = (TransformerEncoder, TransformerDecoder, ConvolutionalEncoder, ConvolutionalDecoder)
WHERE = "train.sharding"


class ShardingBlueprint(Part):
    """Slot for how a model lies in the memory of several processes."""

    @property
    @abstractmethod
    def group(self) -> type[Together]:
        """What the processes are."""

    @abstractmethod
    def admit(self, objective: ObjectiveBlueprint) -> None:
        """Refuse an objective that cannot be computed so.

        Raises:
            Problem: it cannot.
        """


class WholeBlueprint(ShardingBlueprint):
    """Every process holds all."""

    kind: Literal["none"] = "none"

    @property
    def group(self) -> type[Together]:
        """Those that add up gradients."""
        return Together

    def admit(self, objective: ObjectiveBlueprint) -> None:
        """Take any."""


class FullBlueprint(ShardingBlueprint):
    """Weights, gradients and the optimiser's state are shared out, and come together by layers."""

    kind: Literal["full"] = "full"

    @property
    def group(self) -> type[Together]:
        """Those that hold shares."""
        return Sharded

    def admit(self, objective: ObjectiveBlueprint) -> None:
        """Take those whose passes do not depend on what is in a batch."""
        if not objective.even:
            raise Problem(
                f"{objective.kind} goes through the model as often as the examples of a process "
                "ask for, and those who share its weights would wait for ever; leave sharding "
                "out, or take another objective",
                WHERE,
            )


@dataclass(frozen=True, kw_only=True)
class Share(Batch):
    """The rows that one process learns from, or one to go along with where it has none."""

    counts: bool
    last: bool  # of an update

    @staticmethod
    def of(batch: Batch, rows: Tensor, last: bool) -> Share:
        """Return rows of a batch; its first, which does not count, if there are none."""
        taken = batch.take(rows if len(rows) else torch.zeros(1, dtype=torch.long))
        return Share(**vars(taken), counts=len(rows) > 0, last=last)

    @property
    def plain(self) -> Batch:
        """The batch without what is said about it."""
        return Batch(**{one.name: getattr(self, one.name) for one in fields(Batch)})


class ShardedLearner(Learner):
    """A learner that lets gradients wait until the last batch of an update."""

    def forward(self, batch: Batch, moment: Moment = FIRST) -> Loss:
        """Return the loss of a batch, zero where it does not count."""
        from torch.distributed.fsdp import FSDPModule

        share = cast(Share, batch)
        cast(FSDPModule, self).set_requires_gradient_sync(share.last)
        loss = super().forward(share.plain, moment)
        return Loss(*(value * share.counts for value in loss))


class Lockstep(Fitting):
    """Computes batches as they are: those who wait for one another take none in parts."""

    def compute(
        self,
        batches: Sequence[Batch],
        work: Callable[[Batch], R],
        begin: Callable[[], object] = lambda: None,
    ) -> list[R]:
        """Return what ``work`` makes of each batch.

        Raises:
            Problem: memory runs out.
            Lost: another process is gone.
        """
        begin()
        try:
            return [work(batch) for batch in batches]
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise Problem(
                    "memory ran out for a batch, and processes that share weights cannot compute "
                    "it in parts; lower train.batch.tokens, raise train.accumulate instead, or set "
                    "train.recompute: true",
                    WHERE,
                ) from error
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                with talking():
                    raise
            raise


class Sharded(Together):
    """One of several processes, of which each holds its rows of what is learned."""

    shared: ClassVar[bool] = True
    fitting: ClassVar[type[Fitting]] = Lockstep

    def spread(self, learner: Learner) -> Learner:
        """Return a learner with the rows of this process.

        The model itself stays whole in the first process, which judges it.

        Raises:
            Problem: something in the model cannot be shared out.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        _admit(learner.model)
        super().same(learner.parameters())
        model = copy.deepcopy(learner.model) if self.first else learner.model
        made = ShardedLearner(model, learner.objective)
        mesh = init_device_mesh(next(made.parameters()).device.type, (self.size,))
        for part in (*_layers(made.model), made):
            unit = fully_shard(part, mesh=mesh)
            unit.set_gradient_divide_factor(1.0)  # a loss is a sum
            unit.set_force_sum_reduction_for_comms(True)
            unit.set_reduce_scatter_unused_params(True)  # what one process uses all wait for
            if isinstance(part, DecoderLayer):
                register_fsdp_forward_method(part, "prepare")
        return made

    @torch.no_grad()
    def gather(self, learner: Learner, model: nn.Module, average: MovingAverage | None) -> None:
        """Give ``model``, in the first process, whole weights and gradients, or the average."""
        parts, into = learned(learner.model), learned(model)
        for name, parameter in parts.items():
            value = parameter if average is None else beside(average.values[name], parameter)
            with talking():
                full = whole(value)
                slope = None if parameter.grad is None else whole(parameter.grad)
            if self.first:
                into[name].copy_(full)
                into[name].grad = slope  # where an update was left out

    def shares(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Deal out the rows of each batch in turn; who has none goes along."""
        dealt = list(batches)
        for number, batch in enumerate(dealt, 1):
            rows = torch.arange(len(batch))[self.rank :: self.size]
            yield Share.of(batch, rows, number == len(dealt))

    def sum(
        self, parameters: Iterable[nn.Parameter], losses: Sequence[Loss], told: int = 0
    ) -> Sums:
        """Add up losses and the squares of what each has of the gradient, which is summed.

        A parameter that nobody used was sent as zeros, and is left without a gradient.
        """
        used = [parameter for parameter in parameters if parameter.grad is not None]
        norms = torch.stack(torch._foreach_norm([own(p.grad) for p in used if p.grad is not None]))
        sums = [torch.stack(values).sum() for values in columns(losses)]
        sums.append(norms.square().sum())
        places = self.said(told, norms.device)
        message = torch.cat([torch.stack(sums), (norms != 0).float(), places])
        with talking():
            dist.all_reduce(message)
        added, known, places = torch.split(message, [len(sums), len(used), self.size])
        for parameter, some in zip(used, known.tolist(), strict=True):
            if not some:
                parameter.grad = None
        total, nll, squares = added.unbind()
        return Sums(total, nll, squares.sqrt(), heard(places))

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process, but for those that are shared out."""
        super().same(tensor for tensor in tensors if not is_shared(tensor))


def _admit(model: Seq2Seq) -> None:
    """Refuse what cannot be shared out.

    Raises:
        Problem: that.
    """
    if any(isinstance(part, Addition) for part in model.modules()):
        raise Problem(
            "where only an adapter learns there are no gradients and no optimiser's state to "
            "share out; leave sharding out",
            WHERE,
        )
    for name, parameter in model.named_parameters():
        if parameter.dim() == 0:
            raise Problem(
                f"{name} is a single number, which has no rows to share out; leave sharding out, "
                "or take another similarity or attention",
                WHERE,
            )


def _layers(model: Seq2Seq) -> Iterator[nn.Module]:
    """Yield the layers whose weights are together only while they compute.

    What is not among them (tables, heads, recurrent layers, which are used in pieces) is together
    for a whole pass, as is a layer of which something else uses a part.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for prefix, stack in model.named_modules():
        if isinstance(stack, STACKS):
            for number, layer in enumerate(stack.layers):
                inside = f"{prefix}.layers.{number}."
                parameters = [names[id(parameter)] for parameter in layer.parameters()]
                if all(name.startswith(inside) for among in parameters for name in among):
                    yield layer
