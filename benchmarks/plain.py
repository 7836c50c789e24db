"""The three models as plain loops over torch.nn: what PyTorch gives with no toolkit around it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transduce.data.batch import Batch

IGNORE = -100


class PlainTransformer(nn.Module):
    """Model A over ``nn.Transformer``, pre-norm; like ours, it drops no attention weights."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 256)
        nn.init.normal_(self.embedding.weight, std=256**-0.5)
        self.network = nn.Transformer(256, 4, 4, 4, 1024, 0.1, batch_first=True, norm_first=True)
        for module in self.network.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
        self.out = nn.Linear(256, symbols)
        self.out.weight = self.embedding.weight
        nn.init.zeros_(self.out.bias)
        angle = torch.arange(512)[:, None] / 10000 ** (torch.arange(0, 256, 2) / 256)
        self.register_buffer("place", torch.cat([angle.sin(), angle.cos()], -1))
        self.dropout = nn.Dropout(0.1)

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        place = self.place[start : start + ids.shape[1]]
        return self.dropout(self.embedding(ids) * math.sqrt(256) + place)

    def forward(self, source: Tensor, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Return logits; ``hidden`` is True on the padding of the source."""
        causal = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool).triu(1)
        states = self.network(
            self.embed(source),
            self.embed(inputs),
            tgt_mask=causal,
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
            tgt_is_causal=True,
        )
        return self.out(states)

    def read(self, source: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return what the decoder needs of the sources."""
        return (self.network.encoder(self.embed(source), src_key_padding_mask=hidden),)

    def extend(self, prefix: Tensor, memory: tuple[Tensor, ...], hidden: Tensor) -> Tensor:
        """Return the logits of what follows the whole prefix."""
        causal = torch.ones(prefix.shape[1], prefix.shape[1], dtype=torch.bool).triu(1)
        states = self.network.decoder(
            self.embed(prefix), memory[0], tgt_mask=causal, memory_key_padding_mask=hidden
        )
        return self.out(states[:, -1])


class PlainLstm(nn.Module):
    """Model B over ``nn.LSTM``: whole sequences at once, Luong's attention behind the decoder."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(symbols, 256), nn.Embedding(symbols, 256)
        self.encoder = nn.LSTM(256, 256, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(512, 512)
        self.decoder = nn.LSTM(256, 512, batch_first=True)
        self.key = nn.Linear(512, 512, bias=False)
        self.combine = nn.Linear(1024, 512)
        self.out = nn.Linear(512, symbols)
        self.dropout = nn.Dropout(0.1)

    def encode(self, source: Tensor, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the states and what the decoder begins with."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(self.source(source)),
            (~hidden).sum(1),
            batch_first=True,
            enforce_sorted=False,
        )
        states, (last, _) = self.encoder(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
        first = torch.tanh(self.bridge(torch.cat([last[0], last[1]], -1)))[None]
        return self.dropout(states), (first, torch.zeros_like(first))

    def attend(self, states: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        """Return the features from which the output is predicted."""
        scores = torch.bmm(states, keys.transpose(1, 2))
        scores = scores.masked_fill(hidden[:, None], -torch.inf)
        context = torch.bmm(scores.softmax(-1).to(values.dtype), values)
        return torch.tanh(self.combine(torch.cat([states, context], -1)))

    def forward(self, source: Tensor, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Return logits; ``hidden`` is True on the padding of the source."""
        values, first = self.encode(source, hidden)
        states = self.dropout(self.decoder(self.dropout(self.target(inputs)), first)[0])
        features = self.attend(states, self.key(values), values, hidden)
        return self.out(self.dropout(features))

    def read(self, source: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return what the decoder needs of the sources."""
        values, (first, _) = self.encode(source, hidden)
        return values, self.key(values), first[0]

    def extend(self, prefix: Tensor, memory: tuple[Tensor, ...], hidden: Tensor) -> Tensor:
        """Return the logits of what follows the whole prefix."""
        values, keys, first = memory
        begin = (first[None].contiguous(), torch.zeros_like(first)[None])
        states = self.decoder(self.target(prefix), begin)[0]
        return self.out(self.attend(states[:, -1:], keys, values, hidden)[:, 0])


class PlainFeeding(PlainLstm):
    """Model C: the features of each step enter the next one, so steps are taken one by one."""

    def __init__(self, symbols: int) -> None:
        super().__init__(symbols)
        self.decoder = nn.LSTMCell(256 + 512, 512)

    def walk(self, embedded: Tensor, memory: tuple[Tensor, ...], hidden: Tensor) -> Tensor:
        """Return the features of all steps."""
        values, keys, first = memory
        state, feed, features = (first, torch.zeros_like(first)), torch.zeros_like(first), []
        for token in embedded.unbind(1):
            state = self.decoder(torch.cat([token, feed], -1), state)
            query = self.dropout(state[0])[:, None]
            feed = self.dropout(self.attend(query, keys, values, hidden))[:, 0]
            features.append(feed)
        return torch.stack(features, 1)

    def forward(self, source: Tensor, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Return logits; ``hidden`` is True on the padding of the source."""
        embedded = self.dropout(self.target(inputs))
        return self.out(self.walk(embedded, self.read(source, hidden), hidden))

    def extend(self, prefix: Tensor, memory: tuple[Tensor, ...], hidden: Tensor) -> Tensor:
        """Return the logits of what follows the whole prefix."""
        return self.out(self.walk(self.target(prefix), memory, hidden)[:, -1])


Plain = PlainTransformer | PlainLstm | PlainFeeding


def build(name: str, symbols: int) -> Plain:
    """Return model A, B or C."""
    return {"A": PlainTransformer, "B": PlainLstm, "C": PlainFeeding}[name](symbols)


def train(net: nn.Module, batches: Iterator[Batch], bf16: bool) -> Iterator[tuple[int, int, float]]:
    """Make updates; yield the tokens, the slots and the loss of each."""
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / 400, (400 / (step + 1)) ** 0.5)
    )
    net.train()
    for batch in batches:
        source, inputs, labels = batch.sources["source"], batch.inputs, batch.labels
        gold = labels.data.masked_fill(~labels.mask(), IGNORE)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(source.data, ~source.mask(), inputs.data)
            loss = F.cross_entropy(
                logits.flatten(0, 1), gold.flatten(), ignore_index=IGNORE, label_smoothing=0.1
            )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        yield int(batch.tokens), gold.numel(), loss.item()
