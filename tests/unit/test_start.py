"""Beginning from a trained model: what is taken, what is new, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from transduce import folder
from transduce.adapt.start import Side, StartBlueprint, take
from transduce.adapt.vocabulary import Rows, extend, rows
from transduce.blueprint import parse
from transduce.bundle import WEIGHTS, Bundle, fingerprint, model_folder
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.check import check
from transduce.recipe.start import resolve
from transduce.text.codec import CodecBlueprint, TextCodec
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show
from transduce.transducer import Transducer

BASE = """
data:
  train: {kind: tsv, path: train.tsv}
  dev: {kind: tsv, path: dev.tsv, group: true}
text: {source: {tokens: characters}}
model:
  encoder: {kind: transformer, width: 8, layers: 2, heads: 2, inner: 12}
  decoder: {kind: recurrent, embedding: 8, width: 16}
  tie: none
train: {max_steps: 12, batch: {tokens: 64}, threads: 1, precision: fp32, log_every: 5}
validation: {every: 6, examples: 4, keep: 2}
metrics: [exact]
"""
TUNED = """
data:
  train: {kind: tsv, path: new.tsv}
  dev: {kind: tsv, path: dev.tsv, group: true}
start: {run: base}
train: {max_steps: 12, batch: {tokens: 64}, threads: 1, precision: fp32, log_every: 5}
validation: {every: 6, examples: 4, keep: 2}
metrics: [exact]
"""
QUIET = Show(quiet=True)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    words = [f"{number:03d}" for number in range(120)]
    rows = [f"{word}\t{word[::-1]}\n" for word in words]
    (tmp_path / "train.tsv").write_text("".join(rows[:100]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(rows[100:]), encoding="utf-8")
    new = [f"{word}a\tb{word[::-1]}\n" for word in words]
    (tmp_path / "new.tsv").write_text("".join(new), encoding="utf-8")
    assert train(parse(BASE, Experiment), tmp_path, tmp_path / "base", QUIET) == 0
    return tmp_path


def tune(data: Path, name: str, *changes: str) -> Path:
    assert train(parse(TUNED, Experiment, "t", changes), data, data / name, QUIET) == 0
    return data / name


def digest(run: Path, step: int = 12) -> str:
    return folder.digest(run / "checkpoints" / f"step-{step:07d}" / "weights.safetensors")


def codec(tokens: str | dict[str, Any], lines: Iterable[str]) -> TextCodec:
    return TextCodec.learn(CodecBlueprint.model_validate({"tokens": tokens}), lines)


def identity(bundle: Bundle) -> dict[Side, Rows]:
    return {side: rows(bundle.codecs[side], bundle.codecs[side]) for side in ("source", "target")}


def same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def test_what_is_left_out_is_the_bases(data: Path) -> None:
    base = Bundle.load(data / "base" / "model")
    whole = resolve(parse(TUNED, Experiment), data)
    assert whole.model == base.blueprint.model
    assert whole.text.source == base.codecs["source"].blueprint
    assert resolve(parse(BASE, Experiment), data) == parse(BASE, Experiment), "nothing to resolve"


def test_a_run_begins_with_the_weights_of_its_base(data: Path) -> None:
    tuned = tune(data, "tuned", "train.max_steps=1", "train.optimiser.rate=1e-30")
    before, after = (tensors(Bundle.load(run / "model").model) for run in (data / "base", tuned))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, msg=name)
    texts = ["012", "34"]
    assert [r.text for r in Transducer.load(tuned)(texts)] == [
        r.text for r in Transducer.load(data / "base")(texts)
    ]
    record = json.loads((tuned / "start.json").read_text())
    assert record["fingerprint"] == fingerprint(data / "base" / "model")
    assert record["new"] == record["left"] == []


def test_going_on_is_bit_for_bit_the_run_that_was_never_stopped(data: Path) -> None:
    schedule = "train.optimiser.schedule.kind=inverse_sqrt"
    whole = tune(data, "whole", schedule, "start.vocabulary=extend")
    tune(data, "parts", schedule, "start.vocabulary=extend", "train.max_steps=6")
    parts = tune(data, "parts", schedule, "start.vocabulary=extend")
    assert digest(whole) == digest(parts)


def test_thawing_goes_on_bit_for_bit_and_what_is_frozen_stays(data: Path) -> None:
    slowly = ["train.optimiser.schedule.kind=inverse_sqrt", "train.optimiser.unfreeze_every=2"]
    slowly += ["train.optimiser.layer_decay=0.8", "train.optimiser.frozen=[source_table]"]
    whole = tune(data, "whole", *slowly)
    tune(data, "parts", *slowly, "train.max_steps=6")
    parts = tune(data, "parts", *slowly)
    assert digest(whole) == digest(parts)
    first, last = (load_file(whole / "checkpoints" / f"step-{n:07d}" / WEIGHTS) for n in (6, 12))
    before = tensors(Bundle.load(data / "base" / "model").model)
    assert same(
        last["encoders.source.embedding.weight"], before["encoders.source.embedding.weight"]
    )
    late = "encoders.source.layers.0.feed_forward.0.weight"  # the fourth to begin: after update 6
    assert same(first[late], before[late])
    assert not same(last[late], before[late])
    with pytest.raises(Problem, match="would keep random weights"):
        parse(BASE, Experiment, "t", slowly)


def test_symbols_that_are_new_are_added_behind_the_others(data: Path) -> None:
    tuned = Bundle.load(tune(data, "tuned", "start.vocabulary=extend") / "model")
    base = Bundle.load(data / "base" / "model")
    for side, new in (("source", "a"), ("target", "b")):
        before, after = (list(b.codecs[side].tokeniser.vocabulary) for b in (base, tuned))
        assert after == [*before, new]
    assert tuned.model.decoder.embedding.num_embeddings == base.codecs["target"].size + 1


def test_only_what_is_named_is_taken(data: Path) -> None:
    base, other = (tiny.bundle(tiny.MODELS["mixed"]) for _ in range(2))
    for parameter in other.model.parameters():
        torch.nn.init.normal_(parameter)
    drawn = {name: value.clone() for name, value in tensors(other.model).items()}
    start = StartBlueprint(run="base", take=("encoder", "target_table"))
    found = take(other.model, base.model, start, identity(base))
    theirs = tensors(base.model)
    for name, value in tensors(other.model).items():
        mine = name.startswith(("encoders.", "decoder.embedding."))
        assert same(value, theirs[name] if mine else drawn[name]), name
        assert (name in found.taken) == mine
        assert (name in found.new) != mine


@pytest.mark.parametrize("tie", ["none", "output", "all"])
def test_one_table_may_come_from_two_and_two_from_one(tie: str) -> None:
    made = {t: tiny.bundle(tiny.MODELS["recurrent"] | {"tie": t}, joint=True) for t in (tie, "all")}
    start = StartBlueprint(run="base")
    for there, here in ((tie, "all"), ("all", tie)):
        base, model = made[there], made[here].model
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        found = take(model, base.model, start, identity(base))
        assert not found.new
        whole = base.model.encoders if here == "all" else base.model.decoder  # the first name wins
        name = "source.embedding.weight" if here == "all" else "embedding.weight"
        assert same(model.decoder.embedding.weight, whole.get_parameter(name))


def test_one_table_that_comes_from_two_goes_by_the_symbols_of_the_one_it_comes_from() -> None:
    base = tiny.bundle(tiny.MODELS["recurrent"] | {"tie": "none"}, joint=True)
    model = tiny.bundle(tiny.MODELS["recurrent"] | {"tie": "all"}, joint=True).model
    same_order = identity(base)["source"]
    turned = Rows(same_order.sources[::-1])
    take(model, base.model, StartBlueprint(run="b"), {"source": same_order, "target": turned})
    table = base.model.encoders.get_parameter("source.embedding.weight")
    assert same(model.decoder.embedding.weight, table)


def test_shapes_that_differ_are_refused() -> None:
    base = tiny.bundle(tiny.MODELS["recurrent"])
    wide = {"encoder": tiny.RECURRENT | {"width": 10}, "decoder": tiny.RECURRENT}
    with pytest.raises(Problem, match=r"weight_ih_l0 has shape \(16, 8\) .* \(20, 8\)") as caught:
        take(tiny.bundle(wide).model, base.model, StartBlueprint(run="b"), identity(base))
    assert "\n" not in str(caught.value)
    other = {"encoder": tiny.TRANSFORMER, "decoder": tiny.RECURRENT}
    with pytest.raises(Problem, match="have no encoder in common"):
        take(
            tiny.bundle({"encoder": tiny.CONVOLUTIONAL, "decoder": tiny.RECURRENT}).model,
            _without_table(tiny.bundle(other)).model,
            StartBlueprint(run="b", take=("encoder",)),
            identity(base),
        )


def _without_table(bundle: Bundle) -> Bundle:
    bundle.model.encoders["source"].embedding = torch.nn.Identity()
    return bundle


def test_more_layers_are_new_and_fewer_are_left() -> None:
    shallow, deep = (
        tiny.bundle({"encoder": tiny.TRANSFORMER | {"layers": n}, "decoder": tiny.RECURRENT})
        for n in (1, 2)
    )
    start = StartBlueprint(run="base")
    grown = take(deep.model, shallow.model, start, identity(shallow))
    assert grown.new
    assert all(name.startswith("encoders.source.layers.1.") for name in grown.new)
    assert take(shallow.model, deep.model, start, identity(shallow)).left == grown.new


@pytest.mark.parametrize("tokens", ["words", "characters", {"kind": "words", "size": 6}])
def test_an_extended_vocabulary_is_the_old_one_and_more(tokens: str | dict[str, Any]) -> None:
    old = codec(tokens, ["a b c", "a b"])
    new = extend(old, codec(tokens, ["b d"]), "source")
    assert list(new.tokeniser.vocabulary) == [*old.tokeniser.vocabulary, "d"]
    assert new.encode("a b") == old.encode("a b")
    assert new.size == old.size + 1
    assert rows(new, old).sources[-1] == []
    assert rows(new, old).sources[:-1] == [[id] for id in range(old.size)]


def test_pieces_and_bytes_cannot_be_extended() -> None:
    for tokens in ("bytes", {"kind": "sentencepiece", "size": 300}):
        with pytest.raises(Problem, match=r"no symbols can be added; keep"):
            extend(codec(tokens, ["abc abd"] * 20), codec("words", ["x"]), "source")


def test_reserved_symbols_keep_their_vectors_and_new_ones_are_added() -> None:
    plain = CodecBlueprint.model_validate({"tokens": "characters"})
    old = TextCodec.learn(plain, ["ab"], ["<2de>"])
    new = extend(old, TextCodec.learn(plain, ["bc"], ["<2fr>", "<2de>"]), "source")
    assert new.reserved == ("<2de>", "<2fr>")
    assert new.size == old.size + 2
    assert rows(new, old).sources == [[0], [1], [2], [3], [4], [], [5], []]


def test_a_new_symbol_begins_as_the_mean_of_its_pieces() -> None:
    letters, words = codec("characters", ["abc d"]), codec("words", ["ab d xy", "abc"])
    found = dict(zip(words.tokeniser.vocabulary, rows(words, letters).sources, strict=True))
    a, b, c, d = letters.encode("abcd")
    assert (found["ab"], found["abc"], found["d"], found["xy"]) == ([a, b], [a, b, c], [d], [])
    assert [found[name] for name in ("<unk>", "<s>", "</s>")] == [[0], [1], [2]]
    assert str(rows(words, letters)) == ("4 vectors taken, 2 begun as the mean of pieces, 1 drawn")


def test_pieces_of_sentencepiece_are_found_inside_words_and_at_their_beginning() -> None:
    pieces = codec({"kind": "sentencepiece", "size": 280}, ["low lower lowest new newer"] * 50)
    new = codec("words", ["low newest"])
    found = dict(zip(new.tokeniser.vocabulary, rows(new, pieces).sources, strict=True))
    assert found["low"] == pieces.encode("low")
    assert found["newest"] == pieces.encode("newest")
    other = codec({"kind": "sentencepiece", "size": 290}, ["low lower lowest new newer xylo"] * 50)
    shared = set(other.tokeniser.vocabulary) & set(pieces.tokeniser.vocabulary)
    for piece, ids in zip(other.tokeniser.vocabulary, rows(other, pieces).sources, strict=True):
        if piece in shared:
            assert pieces.pieces(ids) == [piece]
        else:
            assert not piece.startswith("▁") or not ids or pieces.pieces(ids)[0].startswith("▁")


def test_vectors_of_a_replaced_vocabulary_go_by_symbol(data: Path) -> None:
    (data / "new.tsv").write_text("cab\t210\nca9\t01\n" * 20, encoding="utf-8")
    tuned = tune(
        data, "tuned", "start.vocabulary=replace", "train.max_steps=1",
        "train.optimiser.rate=1e-30",
    )  # fmt: skip
    base, made = (Bundle.load(run / "model") for run in (data / "base", tuned))
    assert made.codecs["target"].size == 6
    for name in ("decoder.embedding.weight", "head.weight", "head.bias"):
        old, new = base.model.get_parameter(name), made.model.get_parameter(name)
        for piece in "210":
            ours, theirs = made.codecs["target"].encode(piece), base.codecs["target"].encode(piece)
            torch.testing.assert_close(new[ours], old[theirs])


def test_a_side_of_which_nothing_is_taken_is_learned(data: Path) -> None:
    tuned = Bundle.load(tune(data, "tuned", "start.take=[encoder]") / "model")
    base = Bundle.load(data / "base" / "model")
    assert tuned.codecs["source"].fingerprint == base.codecs["source"].fingerprint
    assert "b" in tuned.codecs["target"].tokeniser.vocabulary


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("text.source.tokens.kind=words", "keeps? .*text|leave text out"),
        ("text.joint=true", "the base has a vocabulary for each side"),
        ("model.encoder.width=16", r"has shape .* in the base and .* here"),
        ("text.of=base", "the vocabulary is the base's already"),
        ("start.run=nowhere", "no such folder"),
        ("start.take=[encode]", "encoder"),
    ],
)
def test_what_does_not_go_together_is_refused(data: Path, change: str, said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        tune(data, "tuned", change)
    assert "\n" not in str(caught.value)


def test_a_check_tells_what_would_be_taken(data: Path) -> None:
    said = check(parse(TUNED, Experiment), data, QUIET)
    assert "begins from" in said
    assert "source vocabulary: 13 vectors taken" in said
    assert not (data / "start.json").exists()
    nothing = ["train.optimiser.frozen=[encoder, decoder, head]"]
    with pytest.raises(Problem, match="nothing is left that learns"):
        check(parse(TUNED, Experiment, "t", nothing), data, QUIET)


SPEECHLESS = [
    "model.encoder=none",
    "data.train={kind: monolingual, path: lines.txt}",
    "data.dev={kind: monolingual, path: lines.txt}",
    "validation={every: 6, choose_by: loss}",
    "metrics=[bleu, chrf]",
]


def test_a_language_model_begins_from_another_and_gives_its_decoder_away(data: Path) -> None:
    (data / "lines.txt").write_text("12\n345\n6\n" * 9, encoding="utf-8")
    narrow = ["model.decoder={kind: recurrent, embedding: 8, width: 16, connection: initial}"]
    first = parse(BASE, Experiment, "t", [*SPEECHLESS, *narrow, "train.max_steps=2"])
    assert train(first, data, data / "language", QUIET) == 0
    more = [*SPEECHLESS[1:], "start.run=language", "train.max_steps=2"]
    again = Bundle.load(tune(data, "again", *more) / "model")
    assert again.model.decoder.embedding.num_embeddings == again.codecs["target"].size
    before = Bundle.load(data / "language" / "model")
    assert again.codecs["target"].fingerprint == before.codecs["target"].fingerprint
    small = [
        f"model.{side}={{kind: recurrent, embedding: 8, width: 16}}"
        for side in ("encoder", "decoder")
    ]
    with pytest.raises(Problem, match="no encoder in common"):
        tune(data, "both", "start.run=language", *small)
    given = ["start={run: language, take: [decoder, head]}", "text.source.tokens=characters"]
    made = Bundle.load(tune(data, "given", *given, *small, "train.max_steps=2") / "model")
    assert made.codecs["target"].fingerprint == before.codecs["target"].fingerprint
    record = json.loads((data / "given" / "start.json").read_text())
    assert "decoder.stack.layers.0.weight_ih_l0" in record["taken"]
    assert "decoder.bridge.weight" in record["new"]


def test_what_was_learned_from_text_alone_goes_on_with_pairs_and_with_text(data: Path) -> None:
    (data / "lines.txt").write_text("012 345\n67 a\n89 b\n" * 9, encoding="utf-8")
    text = [f"data.{name}={{kind: denoise, path: lines.txt}}" for name in ("train", "dev")]
    made = [*text, "text.joint=true", "model.tie=all", "model.decoder.embedding=8"]
    first = parse(BASE, Experiment, "t", [*made, "train.max_steps=2"])
    assert train(first, data, data / "base2", QUIET) == 0
    before = Bundle.load(data / "base2" / "model").codecs["source"]
    assert before.reserved
    for name, changes in (("pairs", []), ("text", text)):
        again = tune(data, name, "start.run=base2", "train.max_steps=2", *changes)
        assert Bundle.load(again / "model").codecs["target"].fingerprint == before.fingerprint
        record = json.loads((again / "start.json").read_text())
        assert record["new"] == record["left"] == []


def test_the_fingerprint_is_of_what_answers(tmp_path: Path) -> None:
    made = tiny.bundle(tiny.MODELS["recurrent"])
    weights = tensors(made.model)
    for name, card in (("one", "A card"), ("two", "Another")):
        made.save(tmp_path / name, weights, card)
    made.model.head.get_parameter("bias").data[4] += 1
    made.save(tmp_path / "three", tensors(made.model), "A card")
    one, two, three = (fingerprint(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three
    assert model_folder(tmp_path / "one") == tmp_path / "one"
