"""Faulty updates, kept with all that they follow from, and made again to find the cause."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from transduce import bundle, folder
from transduce.blueprint import define, read
from transduce.bundle import Bundle, model_folder
from transduce.data.batch import Batch
from transduce.experiment import Experiment
from transduce.models.build import build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import MaskPool
from transduce.problem import Problem
from transduce.recipe.prepare import device
from transduce.recipe.start import begin
from transduce.sequences import Sequences
from transduce.text.codec import TextCodec
from transduce.train import checkpoint
from transduce.train.faults import Fault
from transduce.train.fitting import Fitting
from transduce.train.locate import first_fault
from transduce.train.loop import Plan, gradient
from transduce.train.objective import Learner, Task
from transduce.train.precision import choose

FOLDER = "faults"  # in a run folder
WEIGHTS, BATCHES, FACTS = "weights.safetensors", "batches.safetensors", "fault.json"
SHOWN = 5  # examples that are named


def keep(
    root: Path,
    fault: Fault,
    model: nn.Module,
    plan: Plan,
    places: Sequence[str],
    processes: int = 1,
) -> Path | None:
    """Write ``root/step-N``, as long as there are not too many yet; the gradient is still there."""
    target = root / checkpoint.name(fault.step + 1)
    others = [path for path in checkpoint.every(root) if path != target]
    if len(others) >= plan.faults.kept:
        return None
    facts = {
        "step": fault.step,
        "position": list(fault.position),
        "seed": plan.seed,
        "precision": str(plan.precision),
        "device": plan.device.type,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "torch": torch.__version__,
        "loss": fault.total.hex(),
        "norm": fault.norm.hex(),
        "gradient": _digest(model),
        "places": list(places),
    }

    def fill(fresh: Path) -> None:
        save_file(checkpoint.tensors(model), fresh / WEIGHTS)
        save_file(_packed(fault.batches), fresh / BATCHES)
        folder.write_json(fresh / FACTS, facts)

    folder.write(target, fill)
    return target


@dataclass(frozen=True)
class Replay:
    """A faulty update that was made again."""

    facts: Mapping[str, Any]  # what was written down when it happened
    loss: float
    norm: float
    same: bool  # loss, norm and gradient are what they were, bit for bit
    first: str | None  # what was not finite first; None: nothing now

    def __str__(self) -> str:
        places = self.facts["places"]
        named = ", ".join(places[:SHOWN]) + (", ..." if len(places) > SHOWN else "")
        was = "as in the run, bit for bit"
        if not self.same:
            loss, norm = (float.fromhex(self.facts[name]) for name in ("loss", "norm"))
            was = (
                f"not bit for bit as in the run (loss {loss:g}, norm {norm:g}; torch "
                f"{self.facts['torch']} on {self.facts['device']} in {self.facts['processes']} "
                f"processes, here {torch.__version__} in one)"
            )
        return (
            f"step {self.facts['step'] + 1}, {len(places)} examples: {named}\n"
            f"loss {self.loss:g}, norm of the gradient {self.norm:g}: {was}\n"
            f"first not finite: {self.first or 'nothing'}"
        )


def replay(path: Path, parts: Sequence[Path] = ()) -> Replay:
    """Make a faulty update again: that of a folder ``faults/step-N``, or the last one of a run.

    ``parts`` are files of the user's own that define parts of the model.

    Raises:
        Problem: there is none, or it is damaged.
    """
    for file in parts:
        define(file)
    source = _chosen(path)
    folder.verify(source)
    facts = folder.read_json(source / FACTS)
    run = source.parent.parent
    experiment = read(run / "experiment.yaml", Experiment)
    codecs = bundle.load_codecs(run / "text", experiment.one_vocabulary)
    model = build(experiment.model, {name: codec.size for name, codec in codecs.items()})
    if experiment.adapt is not None:  # what is kept are the weights of what was added
        begin(model, codecs, experiment, run)
    checkpoint.load_tensors(model, load_file(source / WEIGHTS), source / WEIGHTS)
    place = device("auto" if facts["device"] == "cuda" else "cpu")
    setting = experiment.train
    learner = Learner(model.to(place), setting.objective.build(_task(experiment, codecs))).train()
    setting.optimiser.thaw(setting.optimiser.build(model), facts["step"])
    precision = choose(facts["precision"], place)
    plan = Plan(setting.optimiser, 0, 1, facts["seed"], place, precision, setting.recompute)
    batches = list(_unpacked(load_file(source / BATCHES)))
    torch.set_num_threads(facts["threads"])

    def again() -> float:
        pool = MaskPool(plan.seed)
        tokens = sum(batch.tokens for batch in batches)
        losses = gradient(learner, batches, tokens, facts["step"], plan, pool, Fitting())
        return float(torch.stack([loss.total for loss in losses]).sum())

    loss = again()
    norm = float(nn.utils.get_total_norm(_gradients(model)))
    found = {"loss": loss.hex(), "norm": norm.hex(), "gradient": _digest(model)}
    same = all(facts[name] == value for name, value in found.items())
    return Replay(facts, loss, norm, same, first_fault(learner, again))


def _task(experiment: Experiment, codecs: Mapping[str, TextCodec]) -> Task:
    """Return what an objective may ask where the data is not at hand."""

    def missing(_: object) -> NoReturn:
        what = "the objective judges whole answers by the data, which a replay does not read"
        raise Problem(what, f"train.objective: {experiment.train.objective.kind}")

    def others(folders: Sequence[str]) -> tuple[Seq2Seq, ...]:
        models = (Bundle.load(model_folder(Path(one))).model.eval() for one in folders)
        return tuple(model.requires_grad_(False) for model in models)

    return Task(missing, codecs["target"], experiment.model.head.slots, missing, others)


def _chosen(path: Path) -> Path:
    if (path / FACTS).exists():
        return path.resolve()
    found = checkpoint.every(path / FOLDER)
    if not found:
        raise Problem("no update of this run was left out; there is nothing to replay", str(path))
    return found[-1].resolve()


def _packed(batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Return the tensors of batches by name."""
    found = {}
    for number, batch in enumerate(batches):
        found[f"{number}.index"] = batch.index
        if batch.weights is not None:
            found[f"{number}.weights"] = batch.weights
        sides = {f"source.{name}": source for name, source in batch.sources.items()}
        sides |= {"target": batch.target} if batch.target else {}
        sides |= {"alignment": batch.alignment} if batch.alignment else {}
        for name, side in sides.items():
            found[f"{number}.{name}.data"] = side.data
            found[f"{number}.{name}.lengths"] = side.lengths
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _unpacked(saved: Mapping[str, Tensor]) -> Iterator[Batch]:
    """Yield the batches again."""
    number = 0
    while (prefix := f"{number}.") and f"{prefix}index" in saved:
        names = {name.removeprefix(prefix) for name in saved if name.startswith(prefix)}
        sides = {
            name.removesuffix(".data"): Sequences(
                saved[prefix + name], saved[prefix + name.removesuffix("data") + "lengths"]
            )
            for name in names
            if name.endswith(".data")
        }
        target, alignment = sides.pop("target", None), sides.pop("alignment", None)
        sources = {name.removeprefix("source."): side for name, side in sides.items()}
        index, weights = saved[f"{prefix}index"], saved.get(f"{prefix}weights")
        yield Batch(sources, target, index, weights, alignment)
        number += 1


def _gradients(model: nn.Module) -> list[Tensor]:
    return [value.grad for value in model.parameters() if value.grad is not None]


def _digest(model: nn.Module) -> str:
    """Return the SHA-256 of the gradient."""
    found = hashlib.sha256()
    for tensor in _gradients(model):
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
