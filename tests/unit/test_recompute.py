"""Activations that are computed again: the same bits, and fewer of them kept."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch
from test_loop import FP32, SYMBOLS, batch, numbers, plan, rows, setting, stream, weights
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from transduce.data.stream import START
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import Dropout, MaskPool, drawing_from
from transduce.nn.recompute import recomputable, recomputing
from transduce.train.loop import TrainState, Update, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.precision import Precision

BF16: Final = Precision(torch.bfloat16, "test")
SIZES: Final = {"width": 8, "layers": 3, "dropout": 0.4}
TRANSFORMER: Final = {"kind": "transformer", "heads": 2, "inner": 32} | SIZES
WINDOWED: Final = TRANSFORMER | {"span": {"kind": "window", "reach": 1, "everywhere": 1}}
SEGMENTS: Final = TRANSFORMER | {"span": {"kind": "segments", "length": 2, "memory": 2}}
CONVOLUTIONAL: Final = {"kind": "convolutional"} | SIZES
RECURRENT: Final = {"kind": "recurrent", "embedding": 8} | SIZES
COVERAGE: Final = {"connection": "coverage", "layers": 1}
MODELS: Final[dict[str, dict[str, Any]]] = {
    "transformer": {"encoder": TRANSFORMER, "decoder": TRANSFORMER},
    "windowed": {"encoder": WINDOWED, "decoder": TRANSFORMER},
    "segments": {"encoder": SEGMENTS, "decoder": SEGMENTS},
    "convolutional": {"encoder": CONVOLUTIONAL, "decoder": CONVOLUTIONAL},
    "recurrent": {"encoder": RECURRENT, "decoder": RECURRENT},
    "gru, one way": {
        "encoder": RECURRENT | {"cell": "gru", "bidirectional": False},
        "decoder": RECURRENT | {"cell": "gru"},
    },
    "truncated": {"encoder": RECURRENT | {"truncate": 2}, "decoder": RECURRENT | {"truncate": 2}},
    "variational": {
        "encoder": RECURRENT | {"variational": True},
        "decoder": RECURRENT | {"variational": True, "normalised": True},
    },
    "coverage": {"encoder": RECURRENT, "decoder": RECURRENT | COVERAGE | {"input_feeding": True}},
    "coverage at once": {"encoder": RECURRENT, "decoder": RECURRENT | COVERAGE},
}
EACH: Final = pytest.mark.parametrize("facts", MODELS.values(), ids=MODELS)


def model(facts: dict[str, Any]) -> Seq2Seq:
    torch.manual_seed(1)
    parts = ModelBlueprint.model_validate(facts)
    return build(parts, {"source": SYMBOLS, "target": SYMBOLS})


def train(facts: dict[str, Any], recompute: bool, precision: Precision) -> tuple[Tensor, Any]:
    """Make three updates of two batches each; return the weights and what each update said."""
    optimiser = setting(rate=0.01)
    learner = Learner(model(facts), CrossEntropyBlueprint().build())
    state = TrainState(learner, optimiser.build(learner), START)
    how = plan(3, optimiser, accumulate=2)._replace(recompute=recompute, precision=precision)
    updates: list[Update] = list(steps(state, stream(), how))
    return weights(state), [numbers(update) for update in updates]


@pytest.mark.parametrize("precision", [FP32, BF16], ids=str)
@EACH
def test_training_is_the_same_bit_for_bit(facts: dict[str, Any], precision: Precision) -> None:
    kept, losses = train(facts, False, precision)
    again, same = train(facts, True, precision)
    assert losses == same
    assert torch.equal(kept, again)


@EACH
def test_with_masks_from_torch_the_gradients_are_the_same(facts: dict[str, Any]) -> None:
    """Where no pool is, as on a GPU, torch's own generator is put back."""
    learner, given = Learner(model(facts), CrossEntropyBlueprint().build()), batch(rows(3, 4))
    gradients = []
    for wanted in (False, True):
        torch.manual_seed(7)
        with recomputing(wanted):
            loss = learner(given).total
        gradients.append(torch.autograd.grad(loss, list(learner.parameters())))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def kept(facts: dict[str, Any], recompute: bool) -> int:
    """Return how many bytes autograd saves besides the weights."""
    learner = Learner(model(facts), CrossEntropyBlueprint().build())
    own = {parameter.untyped_storage().data_ptr() for parameter in learner.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    long = batch([[3, 4, 5, 6] * 50])
    noting, pool = saved_tensors_hooks(note, lambda tensor: tensor), MaskPool(1, 1 << 12, 4)
    with drawing_from(pool), recomputing(recompute), noting:
        loss = learner(long).total
    loss.backward()
    return sum(size for place, size in found.items() if place not in own)


@pytest.mark.parametrize(
    ("name", "share"),
    [("transformer", 0.1), ("windowed", 0.15), ("convolutional", 0.2), ("recurrent", 0.3)],
)
def test_less_is_kept(name: str, share: float) -> None:
    assert kept(MODELS[name], True) < share * kept(MODELS[name], False)


def test_the_pool_must_not_move_on_before_the_backward_pass() -> None:
    pool, x = MaskPool(1, 1 << 12, 4), torch.ones(100, requires_grad=True)
    with drawing_from(pool), recomputing(True):
        out = recomputable(nn.Sequential(nn.Tanh(), Dropout(0.5), nn.Tanh()))(x).sum()
    pool.seek(1)
    with pytest.raises(RuntimeError, match="what was drawn at step 0 is gone at step 1"):
        out.backward()


def test_nothing_is_recomputed_unless_it_is_wanted_and_there_is_a_gradient() -> None:
    layer = nn.Tanh()
    assert recomputable(layer) is layer
    with recomputing(True):
        assert recomputable(layer) is not layer
        with recomputing(False):
            assert recomputable(layer) is layer
        with torch.no_grad():
            assert recomputable(layer) is layer
