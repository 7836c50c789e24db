from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transduce.models.heads import LinearHead
from transduce.models.interface import Bank, Head, Readout
from transduce.models.pointer import PointerGenerator
from transduce.nn import loss as module
from transduce.nn.loss import linear_cross_entropy
from transduce.sequences import Sequences

ROWS, WIDTH, SYMBOLS = 37, 8, 11


def parts(grad: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    features = torch.randn(ROWS, WIDTH, requires_grad=grad)
    weight, bias = nn.Parameter(torch.randn(SYMBOLS, WIDTH)), nn.Parameter(torch.randn(SYMBOLS))
    return features, weight, bias, torch.randint(0, SYMBOLS, (ROWS,))


def test_only_the_loss_carries_a_gradient() -> None:
    total, nll = linear_cross_entropy(*parts(True), 0.1)
    assert total.requires_grad
    assert not nll.requires_grad
    assert total.shape == nll.shape == ()


def test_without_gradients_the_value_is_the_same() -> None:
    with torch.no_grad():
        found = linear_cross_entropy(*parts(False), 0.1)
    assert torch.equal(found[0], linear_cross_entropy(*parts(True), 0.1)[0])
    assert not found[0].requires_grad


def test_a_frozen_part_gets_no_gradient_and_changes_no_other() -> None:
    features, weight, bias, labels = parts(True)
    total, _ = linear_cross_entropy(features, weight, bias, labels, 0.1)
    expected = torch.autograd.grad(total, features)[0]
    total, _ = linear_cross_entropy(features, weight.detach(), bias.detach(), labels, 0.1)
    assert torch.equal(torch.autograd.grad(total, features)[0], expected)


def test_no_rows_cost_nothing() -> None:
    _, weight, bias, labels = parts(True)
    features = torch.zeros(0, WIDTH, requires_grad=True)
    total, nll = linear_cross_entropy(features, weight, bias, labels[:0], 0.1)
    assert total.item() == nll.item() == 0
    gradients = torch.autograd.grad(total, (features, weight, bias))
    assert all((gradient == 0).all() for gradient in gradients)


def test_the_table_never_exists_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor that lives between forward and backward has a row for every token and symbol."""
    monkeypatch.setattr(module, "CHUNK", 10)
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        linear_cross_entropy(*parts(True), 0.1)
    assert sorted(saved) == [SYMBOLS, SYMBOLS * WIDTH, ROWS * WIDTH]


def test_the_head_scores_real_positions_alone() -> None:
    torch.manual_seed(2)
    head = LinearHead(WIDTH, nn.Embedding(SYMBOLS, WIDTH), tied=True)
    features, ids = torch.randn(3, 5, WIDTH), torch.randint(0, SYMBOLS, (3, 5))
    lengths = torch.tensor([5, 1, 3])
    total, nll = head.loss(Readout(features), None, Sequences(ids, lengths), 0.1)
    rows = [
        head.loss(
            Readout(features[row : row + 1, :size]),
            None,
            Sequences(ids[row : row + 1, :size], torch.tensor([size])),
            0.1,
        )
        for row, size in enumerate(lengths.tolist())
    ]
    torch.testing.assert_close(total, torch.stack([row[0] for row in rows]).sum())
    torch.testing.assert_close(nll, torch.stack([row[1] for row in rows]).sum())
    log_probs = head(Readout(features), None)
    assert log_probs.shape == (3, 5, SYMBOLS)
    mask = Sequences(ids, lengths).mask()
    chosen = log_probs.gather(2, ids[..., None])[..., 0]
    torch.testing.assert_close(-chosen[mask].sum(), nll)


@pytest.mark.parametrize("kind", ["linear", "pointer"])
def test_the_loss_of_a_row_counts_its_weight(kind: str) -> None:
    torch.manual_seed(3)
    embedding = nn.Embedding(SYMBOLS, WIDTH)
    head: Head = LinearHead(WIDTH, embedding, tied=True)
    if kind == "pointer":
        head = PointerGenerator(WIDTH, WIDTH, embedding, tied=True)
    features, ids = torch.randn(3, 5, WIDTH), torch.randint(0, SYMBOLS, (3, 5))
    lengths, weights = torch.tensor([5, 1, 3]), torch.tensor([0.5, 3.0, 0.0])
    source = torch.randint(0, SYMBOLS, (3, 4))
    states, mask = torch.randn(3, 4, WIDTH), torch.ones(3, 4, dtype=torch.bool)

    def loss(rows: slice, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        bank = Bank(states[rows], mask[rows], states[rows, 0], ids=source[rows])
        labels = Sequences(ids[rows], lengths[rows])
        out = Readout(features[rows])
        return head.loss(out, head.start({"source": bank}), labels, 0.1, weights)

    def gradients(loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(head.parameters()), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    each = [loss(slice(row, row + 1), None) for row in range(3)]
    losses = torch.stack([one[0] for one in each])
    wanted = (weights * losses).sum()
    total, nll = loss(slice(3), weights[:, None].expand(3, 5))
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(nll, torch.stack([one[1] for one in each]).sum())
    torch.testing.assert_close(gradients(total), gradients(wanted))
    plain, even = loss(slice(3), None)[0], loss(slice(3), torch.ones(3, 5))[0]
    assert torch.equal(plain, even)
