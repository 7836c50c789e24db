"""Processes that train together do what one does, stop together and go on in any number."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from together import Together, command, wait

from transduce import folder
from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.train.objective import Learner, Loss, Moment
from transduce.train.track import Journal

SETTINGS = """
data:
  train: {kind: tsv, path: train.tsv}
  dev: {kind: tsv, path: dev.tsv}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 16, dropout: 0}
  decoder: {kind: recurrent, embedding: 8, width: 16, dropout: 0}
train: {max_steps: 12, batch: {tokens: 24}, threads: 1, precision: fp32, log_every: 1}
validation: {every: 6, examples: 4, keep: 2, average: false, patience: 0}
metrics: [exact]
"""
DROPOUT = ("model.encoder.dropout=0.4", "model.decoder.dropout=0.4", "train.moving_average=0.9")
ENDLESS = ("train.max_steps=100000", "validation.every=100000")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    words = [f"{number:03d}"[: 1 + number % 3] for number in range(70)]
    rows = [f"{word}\t{word[::-1]}\n" for word in words]
    (tmp_path / "train.tsv").write_text("".join(rows[:50]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(rows[50:]), encoding="utf-8")
    (tmp_path / "exp.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


class Training(Together):
    """``transduce train`` in several processes."""

    def __init__(self, data: Path, run: str, size: int, *changes: str) -> None:
        log = data / f"{run}.log"
        log.unlink(missing_ok=True)
        super().__init__(size, log, command, data, ["train", "exp.yaml", "--run", run, *changes])
        self.run = data / run

    def under_way(self, updates: int = 5) -> None:
        """Wait until so many updates are written down."""
        wait(lambda: not self.alive or len(records(self.run)) >= updates)
        assert self.alive, self.said

    def send(self, which: int, number: signal.Signals) -> None:
        pid = self.processes[which].pid
        assert pid
        os.kill(pid, number)


def train(data: Path, run: str, size: int, *changes: str) -> str:
    training = Training(data, run, size, *changes)
    assert training.codes() == [0] * size, training.said
    return training.said


def records(run: Path) -> list[dict[str, Any]]:
    return Journal(run / "train.jsonl").read()


def losses(run: Path) -> list[float]:
    return [r["scores"]["loss"] if "scores" in r else r["loss"] for r in records(run)]


def weights(run: Path) -> str:
    return folder.digest(run / "checkpoints/step-0000012/weights.safetensors")


def saved(run: Path) -> int:
    *_, last = sorted((run / "checkpoints").glob("step-*"))
    folder.verify(last)
    return int(folder.read_json(last / "state.json")["step"])


def test_two_processes_learn_what_one_does_and_any_number_goes_on(data: Path) -> None:
    train(data, "one", 1)
    said = train(data, "two", 2, "train.max_steps=6")
    assert "in each of 2 processes" in said
    assert said.count("step 6/6") == 1
    assert "by 2 processes and goes on with 1" in train(data, "two", 1)
    assert losses(data / "two") == pytest.approx(losses(data / "one"), abs=1e-5)
    assert len(losses(data / "one")) == 14
    one, two = ([r.get("tokens") for r in records(data / run)] for run in ("one", "two"))
    assert one == two


def test_with_dropout_the_same_number_of_processes_goes_on_bit_for_bit(data: Path) -> None:
    train(data, "whole", 2, *DROPOUT)
    train(data, "parts", 2, *DROPOUT, "train.max_steps=7")
    train(data, "parts", 2, *DROPOUT)
    assert weights(data / "whole") == weights(data / "parts")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_any_process_stops_all_and_saves(
    data: Path, number: signal.Signals, code: int
) -> None:
    training = Training(data, "run", 2, *ENDLESS)
    training.under_way()
    training.send(1, number)
    assert training.codes() == [code, code]
    assert saved(data / "run") == records(data / "run")[-1]["step"]
    assert training.said.count("stopped and saved") == 1


def test_a_time_limit_ends_all_and_saves(data: Path) -> None:
    training = Training(data, "run", 2, *ENDLESS, "train.time_limit=2 s")
    assert training.codes() == [75, 75], training.said
    assert training.said.count("stopped and saved") == 1
    assert "gone" not in training.said
    assert saved(data / "run") >= 0


@pytest.mark.parametrize("which", [0, 1])
def test_if_one_process_dies_all_end_and_training_again_goes_on(data: Path, which: int) -> None:
    training = Training(data, "run", 2, "train.max_steps=100000", "validation.every=4")
    training.under_way(8)
    training.send(which, signal.SIGKILL)
    expected = [75, 69]
    expected[which] = -signal.SIGKILL
    assert training.codes() == expected
    told = [line for line in training.said.split("\n") if "train again to go on" in line]
    assert len(told) == which  # by the first process, if it is alive
    assert "Traceback" not in training.said
    step = saved(data / "run")
    changes = (f"train.max_steps={step + 2}", "validation.every=4")
    assert f"going on from step {step}" in train(data, "run", 2, *changes)


def test_all_leave_out_and_go_back_together_and_one_says_so(data: Path) -> None:
    wild = ("train.optimiser.rate=1e30", "train.optimiser.clip=1e30")
    training = Training(data, "run", 2, *wild, *ENDLESS, "train.faults.returns=1")
    assert training.codes() == [2, 2], training.said
    assert training.said.count("back from step") == 1
    assert training.said.count("then begin anew") == 1
    faults = [record["step"] for record in records(data / "run") if record["kind"] == "fault"]
    assert len(faults) == len(set(faults)) >= 3


def cramped(data: Path) -> None:
    """Train in a group of which the second process has no room for more than an example."""
    from transduce.train import loop

    plain = loop.gradient

    def learn(learner: Learner, *rest: Any) -> list[Loss]:
        objective = learner.objective

        def within(model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
            if len(batch) > 1 and os.environ["RANK"] == "1":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return objective(model, batch, moment)

        learner.objective = within
        losses = plain(learner, *rest)
        learner.objective = objective
        return losses

    pytest.MonkeyPatch().setattr(loop, "gradient", learn)
    command(data, ["train", "exp.yaml", "--run", "cramped", "train.max_steps=6"])


def test_memory_that_runs_out_in_another_process_is_told_and_counted(data: Path) -> None:
    training = Together(2, data / "log", cramped, data)
    assert training.codes() == [0, 0], training.said
    told = [record for record in records(data / "cramped") if record["kind"] == "memory"]
    assert {record["process"] for record in told} == {2}
    assert all(record["positions"] == int(record["positions"]) > 1 for record in told)
    assert training.said.count("memory ran out in process 2 of 2 for a batch of") == len(told)
    assert f"Memory ran out {len(told)} times in process 2" in (
        data / "cramped" / "report.html"
    ).read_text(encoding="utf-8")


def test_a_mistake_is_told_once_by_the_first_for_whom_the_others_wait(data: Path) -> None:
    (data / "train.tsv").write_text("no table\n", encoding="utf-8")
    training = Training(data, "run", 2)
    assert training.codes() == [2, 69]
    assert training.said.count("train.tsv:1") == 1
    assert "gone" not in training.said


def test_a_problem_that_all_have_is_told_once(data: Path) -> None:
    training = Training(data, "run", 2, "train.optimiser.rate=1e30", "train.optimiser.clip=1e30")
    assert training.codes() == [2, 2]
    assert training.said.count("updates in a row are not numbers") == 1


def run(data: Path, *module: str) -> subprocess.Popen[str]:
    """Start a module of Python in the folder of the data."""
    environment = os.environ | {"TRANSDUCE_CACHE": str(data / "cache")}
    environment.pop("WORLD_SIZE", None)
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=data,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_command_line_starts_processes_and_says_which_one_died(data: Path) -> None:
    process = run(data, "transduce", "train", "exp.yaml", "--run=run", "--processes=2", *ENDLESS)
    wait(lambda: process.poll() is not None or len(records(data / "run")) >= 5)
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(started[1]), signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    *_, last = said.strip().split("\n")
    again = "train again to go on from the last checkpoint"
    assert last == f"process 2 of 2 was ended by SIGKILL; {again}"
    assert "Traceback" not in said
    assert not Path(f"/proc/{started[0]}").exists()


def test_torchrun_makes_one_group_of_two_nodes(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--local-addr=127.0.0.1"]
    options += [f"--rdzv-endpoint=127.0.0.1:{port}", "-m", "--", "transduce", "train", "exp.yaml"]
    nodes = [run(data, "torch.distributed.run", *options, "--run=run") for _ in range(2)]
    said = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum("in each of 2 processes" in text for text in said) == 1
    assert sum("trained in" in text for text in said) == 1
    assert [r["step"] for r in records(data / "run") if r["kind"] == "validation"] == [6, 12]
