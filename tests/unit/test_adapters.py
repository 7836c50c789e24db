"""Adapters: small folders beside a base, runs of them, and models that they are merged into."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_start import BASE, QUIET, TUNED

from transduce import folder
from transduce.adapt import AdaptBlueprint, BottleneckBlueprint, LoraBlueprint, StartBlueprint
from transduce.blueprint import own, parse
from transduce.bundle import Addendum, Bundle, fingerprint
from transduce.experiment import Experiment
from transduce.models.heads import LinearHead
from transduce.nn.addition import learned
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.calibrate import calibrate
from transduce.recipe.start import merge
from transduce.recipe.use import verify
from transduce.train.checkpoint import tensors
from transduce.train.optimise import OptimiserBlueprint
from transduce.transducer import Transducer

TEXTS = ["abc", "bcda"]
CPU = torch.device("cpu")
KINDS: dict[str, AdaptBlueprint] = {
    "lora": LoraBlueprint(rank=1),
    "bottleneck": BottleneckBlueprint(width=2),
}


def made(root: Path, kind: str, model: dict[str, Any] = tiny.MODELS["mixed"]) -> Bundle:
    """Save a base in ``root/base`` and ``root/adapter`` beside it; return what is in the latter."""
    base = tiny.bundle(model, search={"kind": "beam", "width": 3})
    base.save(root / "base", tensors(base.model), "the base")
    adapt = KINDS[kind]
    addendum = Addendum(root / "base", fingerprint(root / "base"), adapt)
    bundle = Bundle(base.blueprint, base.codecs, base.model, addendum)
    adapt.adapt(bundle.model)
    for parameter in learned(bundle.model).values():
        torch.nn.init.normal_(parameter, std=0.3)
    bundle.save(root / "adapter", tensors(bundle.model), "an adapter")
    return bundle


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", tiny.MODELS)
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, name: str, kind: str) -> None:
    wanted = Transducer(made(tmp_path, kind, tiny.MODELS[name]), CPU)(TEXTS)
    plain = Transducer.load(tmp_path / "base", "cpu")(TEXTS)
    found = Transducer.load(tmp_path / "adapter", "cpu")(TEXTS)
    assert [r.text for r in found] == [r.text for r in wanted]
    for one, other, before in zip(found, wanted, plain, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.score != pytest.approx(before.score, abs=1e-4)


def test_the_folder_holds_what_was_added_and_nothing_else(tmp_path: Path) -> None:
    made(tmp_path, "lora")
    names = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    assert names == ["README.md", "adapter.json", "manifest.json", "weights.safetensors"]
    written = folder.read_json(tmp_path / "adapter" / "adapter.json")
    assert written["base"] == "../base"
    assert "undamaged" in verify(tmp_path / "adapter") or "as they were" in verify(tmp_path)


def test_it_remembers_the_files_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/mine/part.py": "a"}
    monkeypatch.setattr(own, "files", lambda *_: dict(files))
    made(tmp_path, "lora")
    assert folder.read_json(tmp_path / "adapter" / "adapter.json")["parts"] == files
    Bundle.load(tmp_path / "adapter")
    base = tiny.bundle(tiny.MODELS["mixed"])
    files["/mine/part.py"] = "b"
    base.save(tmp_path / "base", tensors(base.model), "the base, with the parts as they are now")
    with pytest.warns(UserWarning, match=r"^/mine/part.py: not what it was when this model was"):
        Bundle.load(tmp_path / "adapter")


def test_it_finds_its_base_where_both_have_moved_or_where_it_is_said_to_be(tmp_path: Path) -> None:
    made(tmp_path / "old", "lora")
    (tmp_path / "old").rename(tmp_path / "new")
    answer = Transducer.load(tmp_path / "new" / "adapter")("abc")
    (tmp_path / "new" / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(Problem, match=r"there is none; put it there, or say where it is") as caught:
        Transducer.load(tmp_path / "new" / "adapter")
    assert "\n" not in str(caught.value)
    again = Transducer.load(tmp_path / "new" / "adapter", base=tmp_path / "elsewhere")("abc")
    assert again == answer
    with pytest.raises(Problem, match="needs no base"):
        Transducer.load(tmp_path / "elsewhere", base=tmp_path / "elsewhere")


def test_another_base_is_refused(tmp_path: Path) -> None:
    made(tmp_path, "lora")
    other = tiny.bundle(tiny.MODELS["mixed"])
    other.model.decoder.embedding.weight.data[4] += 1
    other.save(tmp_path / "base", tensors(other.model), "another")
    with pytest.raises(Problem, match=r"added to another model than the one in"):
        Transducer.load(tmp_path / "adapter")


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    made(tmp_path, "lora")
    path = tmp_path / "adapter" / "adapter.json"
    path.write_text(path.read_text().replace('"../base"', '"../bass"'))
    with pytest.raises(Problem, match="damaged"):
        Bundle.load(tmp_path / "adapter")


def test_merging_makes_a_plain_model(tmp_path: Path) -> None:
    wanted = Transducer(made(tmp_path, "lora"), CPU)(TEXTS)
    merge(tmp_path / "adapter", tmp_path / "merged", None)
    shutil.rmtree(tmp_path / "base")
    loaded = Bundle.load(tmp_path / "merged")
    assert loaded.addendum is None
    assert tensors(loaded.model).keys() == tensors(tiny.bundle(tiny.MODELS["mixed"]).model).keys()
    for one, other in zip(Transducer(loaded, CPU)(TEXTS), wanted, strict=True):
        assert one.text == other.text
        assert one.score == pytest.approx(other.score, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_can_be_calibrated(tmp_path: Path, kind: str) -> None:
    made(tmp_path, kind)
    before = Transducer.load(tmp_path / "adapter", "cpu")("abc")
    (tmp_path / "held.tsv").write_text("abc\tcba\nbcd\tdcb\n", encoding="utf-8")
    calibrate(tmp_path / "adapter", [tmp_path / "held.tsv"])
    written = folder.read_json(tmp_path / "adapter" / "adapter.json")
    after = Transducer.load(tmp_path / "adapter", "cpu")
    assert after.temperature == written["temperature"] != 1.0
    assert after("abc").score == before.score
    assert Transducer.load(tmp_path / "base", "cpu").temperature == 1.0


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    made(tmp_path, "bottleneck")
    with pytest.raises(Problem, match="layers of their own"):
        merge(tmp_path / "adapter", tmp_path / "merged", None)
    with pytest.raises(Problem, match="nothing to merge"):
        merge(tmp_path / "base", tmp_path / "merged", None)
    with pytest.raises(Problem, match="name a new folder"):
        merge(tmp_path / "adapter", tmp_path / "base", None)


def test_adapters_may_be_in_some_parts_only() -> None:
    for blueprint in (
        LoraBlueprint(rank=1, parts=("encoder", "encoder")),
        BottleneckBlueprint(width=1),
    ):
        model = tiny.bundle(tiny.MODELS["transformer"]).model
        blueprint.adapt(model)
        sides = {name.partition(".")[0] for name in learned(model)}
        assert not any(".weight.1." in name for name in learned(model)), "added once"
        assert sides == ({"encoders"} if blueprint.kind == "lora" else {"encoders", "decoder"})


def test_no_table_and_no_small_matrix_gets_a_change() -> None:
    model = tiny.bundle(tiny.MODELS["recurrent"] | {"tie": "output"}).model
    LoraBlueprint(rank=2).adapt(model)
    names = {name.partition(".parametrizations")[0] for name in learned(model)}
    assert "decoder.stack.layers.0" in names
    assert not any("embedding" in name or "energy" in name for name in names)
    assert isinstance(model.head, LinearHead)
    assert model.head.weight is model.decoder.embedding.weight
    with pytest.raises(Problem, match="no place for lora"):
        LoraBlueprint(rank=100).adapt(tiny.bundle(tiny.MODELS["recurrent"]).model)


def test_the_optimiser_has_the_small_parameters_alone() -> None:
    model = tiny.bundle(tiny.MODELS["mixed"]).model
    LoraBlueprint(rank=1).adapt(model)
    groups = OptimiserBlueprint(weight_decay=0.1).build(model).param_groups
    held = {id(value) for group in groups for value in group["params"]}
    assert held == {id(value) for value in learned(model).values()}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    rows = [f"{number:03d}\t{f'{number:03d}'[::-1]}\n" for number in range(120)]
    (tmp_path / "train.tsv").write_text("".join(rows[:100]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(rows[100:]), encoding="utf-8")
    (tmp_path / "new.tsv").write_text("".join(rows[:40]), encoding="utf-8")
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    (tmp_path / "tuned.yaml").write_text(TUNED, encoding="utf-8")
    return tmp_path


def tune(data: Path, name: str, *changes: str) -> Path:
    if not (data / "base").exists():
        assert train(parse(BASE, Experiment), data, data / "base", QUIET) == 0
    assert train(parse(TUNED, Experiment, "t", changes), data, data / name, QUIET) == 0
    return data / name


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapters_run_is_small_and_goes_on_bit_for_bit(data: Path, kind: str) -> None:
    changes = [f"adapt.kind={kind}", "train.optimiser.schedule.kind=inverse_sqrt"]
    changes += ["train.optimiser.rate=1e-2", "validation.average=false"]
    changes += ["adapt.rank=1"] if kind == "lora" else ["adapt.width=2"]
    whole = tune(data, "whole", *changes)
    tune(data, "parts", *changes, "train.max_steps=6")
    parts = tune(data, "parts", *changes)
    for name in ("weights.safetensors", "optimiser.safetensors"):
        one, other = (run / "checkpoints" / "step-0000012" / name for run in (whole, parts))
        assert folder.digest(one) == folder.digest(other)
        before = data / "base" / "checkpoints" / "step-0000012" / name
        assert one.stat().st_size < before.stat().st_size
    assert (whole / "model" / "adapter.json").exists()
    assert "need it" in (whole / "model" / "README.md").read_text()
    base = tensors(Bundle.load(data / "base" / "model").model)
    after = dict(Bundle.load(whole / "model").model.named_parameters())
    changed = {name for name, value in base.items() if not torch.equal(value, after[name])}
    assert bool(changed) == (kind == "lora"), "what is trained already stays as it is"
    assert all(after[name].dim() > 1 for name in changed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["adapt=lora", "start.take=[encoder]"], "leave start.take and start.vocabulary out"),
        (["adapt=lora", "start=null"], "name it in start.run"),
        (["adapt=lora", "model.encoder.dropout=0.5"], "and this is another"),
    ],
)
def test_what_does_not_go_together_is_refused(data: Path, changes: list[str], said: str) -> None:
    with pytest.raises(Problem, match=said):
        tune(data, "tuned", *changes)


def test_no_adapter_is_a_base_of_another(data: Path) -> None:
    tune(data, "small", "adapt=bottleneck", "train.max_steps=1")
    with pytest.raises(Problem, match="bottleneck adapter, which is no model to begin from"):
        tune(data, "tuned", "start.run=small")
    tune(data, "low", "adapt={kind: lora, rank: 1}", "train.max_steps=1")
    with pytest.raises(Problem, match="merge it first"):
        tune(data, "tuned", "start.run=low", "adapt={kind: lora, rank: 1}")
    tune(data, "tuned", "start.run=low", "train.max_steps=1")


def test_from_a_base_to_an_answer_on_the_command_line(data: Path) -> None:
    def transduce(*arguments: str, given: str = "") -> str:
        command = [sys.executable, "-m", "transduce", *arguments]
        done = subprocess.run(command, cwd=data, input=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    transduce("train", "base.yaml", "train.max_steps=2", "--run", "base")
    lora = ("adapt={kind: lora, rank: 1}", "train.max_steps=2", "--run", "low")
    transduce("train", "tuned.yaml", *lora)
    transduce("merge", "low", "merged")
    answers = [transduce("predict", run, "--greedy", given="012\n3\n") for run in ("low", "merged")]
    assert answers[0] == answers[1]
    assert answers[0].count("\n") == 2


def test_the_default_start_is_all_of_a_model() -> None:
    assert StartBlueprint(run="x").sides == {"source", "target"}
