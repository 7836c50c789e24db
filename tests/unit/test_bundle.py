"""Model folders: what is saved is what is loaded, and no damage goes unnoticed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from transduce import __version__, folder
from transduce.bundle import FORMAT, Bundle, is_bundle
from transduce.problem import Problem
from transduce.train.checkpoint import tensors
from transduce.transducer import Transducer

TEXTS = ["abc", "bcda", "ä <b>"]
FILES = [
    "README.md",
    "blueprint.json",
    "manifest.json",
    "source.json",
    "source.vocabulary",
    "target.json",
    "target.vocabulary",
    "weights.safetensors",
]
WIDE = {"embedding": 8, "width": 8}


def saved(path: Path, made: Bundle) -> Path:
    made.save(path, tensors(made.model), "# A card\n")
    return path


WALKING = {"encoder": tiny.RECURRENT, "decoder": tiny.RECURRENT | {"connection": "monotonic"}}
SAVED = tiny.MODELS | {"stepwise": tiny.STEPWISE, "walking": WALKING}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("joint", [False, True])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, name: str, joint: bool) -> None:
    made = tiny.bundle(SAVED[name], joint=joint, search={"kind": "beam", "width": 3})
    loaded = Bundle.load(saved(tmp_path / "model", made))
    assert loaded.blueprint == made.blueprint
    for side in ("source", "target"):
        assert loaded.codecs[side].fingerprint == made.codecs[side].fingerprint
    before, after = tensors(made.model), tensors(loaded.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    cpu = torch.device("cpu")
    wanted = Transducer(made, cpu)(TEXTS, alternatives=2)
    assert Transducer(loaded, cpu)(TEXTS, alternatives=2) == wanted, "bit for bit"


def test_a_folder_holds_data_and_nothing_else(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", tiny.bundle(tiny.MODELS["recurrent"]))
    assert sorted(file.name for file in path.iterdir()) == FILES
    assert (path / "README.md").read_text() == "# A card\n"
    written = folder.read_json(path / "blueprint.json")
    assert (written["format"], written["transduce"]) == (FORMAT, __version__)
    assert is_bundle(path)
    assert not is_bundle(tmp_path)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (
        saved(tmp_path / name, tiny.bundle(tiny.MODELS["mixed"])) for name in ("one", "two")
    )
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()


@pytest.mark.parametrize(("tie", "tables"), [("none", 3), ("output", 2), ("all", 1)])
def test_a_table_that_serves_twice_is_kept_once(tmp_path: Path, tie: str, tables: int) -> None:
    parts: dict[str, Any] = {side: {"kind": "recurrent", **WIDE} for side in ("encoder", "decoder")}
    made = tiny.bundle(parts | {"tie": tie}, joint=True)
    path = saved(tmp_path / "model", made)
    shape = (made.codecs["target"].size, 8)
    kept = load_file(path / "weights.safetensors")
    assert sum(tensor.shape == shape for tensor in kept.values()) == tables
    again = Bundle.load(path).model
    assert sum(parameter.shape == shape for parameter in again.parameters()) == tables


def test_a_joint_codec_is_one_codec_in_one_place(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", tiny.bundle(tiny.MODELS["recurrent"], joint=True))
    names = {file.name for file in path.iterdir()}
    assert {name for name in names if name not in FILES} == {"joint.json", "joint.vocabulary"}
    loaded = Bundle.load(path)
    assert loaded.codecs["source"] is loaded.codecs["target"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("sound") / "model", tiny.bundle(tiny.MODELS["recurrent"]))


def refused(path: Path, changed: str) -> None:
    """Loading a folder must name the file that was changed; if that is the manifest, any file."""
    with pytest.raises(Problem) as caught:
        Bundle.load(path)
    where = Path(caught.value.where or "")
    assert where == path / changed or (changed == "manifest.json" and where.is_relative_to(path))
    assert "\n" not in str(caught.value)
    assert "; " in caught.value.what or changed == "manifest.json"


@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_goes_unnoticed(
    sound: Path, tmp_path: Path, name: str, place: float, bit: int
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy, dirs_exist_ok=True)
    content = bytearray((sound / name).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (copy / name).write_bytes(content)
    refused(copy, name)


@given(name=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_truncation_goes_unnoticed(sound: Path, tmp_path: Path, name: str, share: float) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sound, copy, dirs_exist_ok=True)
    content = (sound / name).read_bytes()
    kept = content[: int(share * len(content))]
    (copy / name).write_bytes(kept)
    if not (name == "manifest.json" and kept + b"\n" == content):  # it still says all
        refused(copy, name)


@pytest.mark.parametrize("name", FILES)
def test_no_missing_file_goes_unnoticed(sound: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(sound, tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(Problem) as caught:
        Bundle.load(tmp_path / "copy")
    assert caught.value.where == str(tmp_path / "copy" / name)


def test_a_file_of_somebody_else_is_left_alone(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "copy")
    (tmp_path / "copy" / ".DS_Store").write_bytes(b"\0")
    Bundle.load(tmp_path / "copy")


def test_what_is_no_model_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"manifest.json: there is no such file"):
        Bundle.load(tmp_path)


def rewritten(path: Path, **changes: object) -> Path:
    """Change the blueprint of a model folder as its writer would have written it."""
    facts = folder.read_json(path / "blueprint.json") | changes

    def fill(fresh: Path) -> None:
        shutil.copytree(path, fresh, dirs_exist_ok=True)
        (fresh / "manifest.json").unlink()
        folder.write_json(fresh / "blueprint.json", facts)

    folder.write(path.with_name("rewritten"), fill)
    return path.with_name("rewritten")


def test_a_folder_of_a_later_version_is_refused_in_plain_words(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "model")
    later = {"format": FORMAT + 1, "transduce": "9.1.0", "unheard_of": {"new": True}}
    path = rewritten(tmp_path / "model", **later)
    with pytest.raises(Problem) as caught:
        Bundle.load(path)
    assert str(caught.value) == (
        f"{path / 'blueprint.json'}: this folder has format {FORMAT + 1}, this version of "
        f"transduce reads up to {FORMAT}; install transduce 9.1.0 or later"
    )


def test_a_part_that_this_version_does_not_know_is_named(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "model")
    model = folder.read_json(sound / "blueprint.json")["model"]
    model["decoder"]["kind"] = "recurent"
    path = rewritten(tmp_path / "model", model=model)
    with pytest.raises(Problem, match="no such choice 'recurent'; did you mean 'recurrent'"):
        Bundle.load(path)


def test_weights_of_another_model_are_refused(sound: Path, tmp_path: Path) -> None:
    def fill(fresh: Path) -> None:
        shutil.copytree(sound, fresh, dirs_exist_ok=True)
        (fresh / "manifest.json").unlink()
        weights = load_file(sound / "weights.safetensors")
        weights["decoder.bridge.bias"] = torch.zeros(3)
        save_file(weights, fresh / "weights.safetensors")

    folder.write(tmp_path / "other", fill)
    with pytest.raises(Problem, match=r"decoder.bridge.bias has shape \(3,\), the model wants"):
        Bundle.load(tmp_path / "other")


def test_an_interrupted_save_leaves_the_model_that_was(tmp_path: Path) -> None:
    made = tiny.bundle(tiny.MODELS["recurrent"])
    path = saved(tmp_path / "model", made)
    wrong = {name: tensor.to_sparse() for name, tensor in tensors(made.model).items()}
    with pytest.raises(ValueError, match="sparse"):
        made.save(path, wrong, "card")
    Bundle.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
