"""Training in real processes: stopped, killed, and several of them under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_images import street
from tiny_training import CONFIG, digest, shapes

from textdifuse_ros.data.pack import write_pack
from textdifuse_ros.train.fusion_task import fusion_trainer
from textdifuse_ros.train.log import LOG
from textdifuse_ros.train.ranks import Ranks
from textdifuse_ros.train.state import STATE, WEIGHTS

PROGRAM = str(Path(__file__).with_name("tiny_training.py"))
DEADLINE = 240
STEPS = 40


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "images.pack"
    write_pack(path, [street(n, 100, 140) for n in range(3)])
    return path


def command(pack: Path, start: Path, run: Path, steps: int = STEPS, **flags: object) -> list[str]:
    given = {"steps": steps, "warm_up": 2, "log_every": 1, "save_every": 7, "sheet_every": 0, "workers": 1, **flags}
    words = ["train", "control", "--pack", pack, "--run", run, "--start", start, "--device", "cpu"]
    return [str(word) for word in [*words, *(w for k, v in given.items() for w in (f"--{k.replace('_', '-')}", v))]]


def start(words: list[str], *, processes: int = 1, digests: Path | None = None) -> subprocess.Popen[str]:
    """Start the program in its own process group, as a terminal would."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if digests is not None:
        digests.mkdir()
        environment["DIGESTS"] = str(digests)
    # Without "--" torchrun's parser, on Python 3.11, takes --run for an abbreviation of its own options.
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--"]
    program = [sys.executable, *(torchrun if processes > 1 else []), PROGRAM, *words]
    return subprocess.Popen(
        program, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if (run / LOG).is_file() and len((run / LOG).read_text().splitlines()) >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"no step {step} within {DEADLINE} s")


def bits(run: Path) -> tuple[int, str, str]:
    state = torch.load(run / STATE, weights_only=True)
    return state["step"], digest(state["networks"]), digest(state["ema"])


@pytest.fixture(scope="module")
def whole(pack: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    status, out, err = wait(start(command(pack, tiny_checkpoint, run)))
    assert status == 0, err
    assert f"{STEPS} steps done" in out
    return run


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_a_stopped_process_resumes_to_the_same_bits(
    how: str, pack: Path, tiny_checkpoint: Path, tmp_path: Path, whole: Path
) -> None:
    run = tmp_path / "run"
    process = start(command(pack, tiny_checkpoint, run))
    wait_for_step(run, 9, process)
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:  # a terminal sends it to the whole group, the loading process too
        os.killpg(process.pid, signal.SIGINT)
    status, out, err = wait(process)
    assert status == 130, err
    step = bits(run)[0]
    assert 9 <= step < STEPS
    assert f"stopped after step {step} of {STEPS}; repeat the command to resume" in out
    assert "Traceback" not in err
    status, _, err = wait(start(command(pack, tiny_checkpoint, run)))
    assert status == 0, err
    assert bits(run) == bits(whole)


def test_a_killed_process_resumes_from_its_last_state_to_the_same_bits(
    pack: Path, tiny_checkpoint: Path, tmp_path: Path, whole: Path
) -> None:
    run = tmp_path / "run"
    process = start(command(pack, tiny_checkpoint, run))
    wait_for_step(run, 10, process)
    os.killpg(process.pid, signal.SIGKILL)
    wait(process)
    assert bits(run)[0] % 7 == 0 and bits(run)[0] < STEPS
    status, _, err = wait(start(command(pack, tiny_checkpoint, run)))
    assert status == 0, err
    assert bits(run) == bits(whole)
    assert [json.loads(line)["step"] for line in (run / LOG).read_text().splitlines()] == list(range(1, STEPS + 1))


def test_two_processes_average_their_gradients(
    pack: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gloo processes under torchrun against the average of both ranks' gradients, taken here by hand."""
    run, digests = tmp_path / "run", tmp_path / "digests"
    status, _, err = wait(
        start(command(pack, tiny_checkpoint, run, 1, precision="float32"), processes=2, digests=digests)
    )
    assert status == 0, err
    first, second = ((digests / name).read_text() for name in "01")
    assert first == second

    for stage, little in shapes().items():
        monkeypatch.setattr(stage, "shapes", little)
    config = CONFIG.__class__(stage="control", steps=1, warm_up=2, workers=0, sheet_every=0, precision="float32")
    ranks = [fusion_trainer(config, tmp_path / "none", pack, tiny_checkpoint) for _ in range(2)]
    batches = []
    for rank, trainer in enumerate(ranks):
        trainer.ranks = Ranks(rank)
        batches.append(trainer.task.batches(0, 1, rank)[0])
        trainer.task.losses(batches[-1], trainer.generator())["loss"].backward()
    assert not torch.equal(batches[0].visible, batches[1].visible)
    mine = ranks[0]
    for own, other in zip(mine.task.parameters, ranks[1].task.parameters, strict=True):
        assert own.grad is not None and other.grad is not None
        own.grad = (own.grad + other.grad) / 2
    torch.nn.utils.clip_grad_norm_(mine.task.parameters, config.clip)
    mine.optimizer.step()
    trained = torch.load(run / STATE, weights_only=True)["networks"]
    before = fusion_trainer(config, tmp_path / "none", pack, tiny_checkpoint).networks.state_dict()
    for name, tensor in mine.networks.state_dict().items():
        # Adam divides by the magnitude of the gradient: where it is close to zero, its sign is arbitrary.
        close = (tensor - trained[name]).abs() <= 1e-6
        assert close.float().mean() > 0.999, name
    assert any(not torch.equal(trained[name], before[name]) for name in trained)


def test_two_processes_stop_together_and_resume_to_the_same_bits(
    pack: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags = {"steps": 24, "workers": 0}
    status, _, err = wait(start(command(pack, tiny_checkpoint, whole, **flags), processes=2))  # type: ignore[arg-type]
    assert status == 0, err
    process = start(command(pack, tiny_checkpoint, run, **flags), processes=2)  # type: ignore[arg-type]
    wait_for_step(run, 5, process)
    process.send_signal(signal.SIGTERM)
    wait(process)
    assert 5 <= bits(run)[0] < 24
    digests = tmp_path / "digests"
    process = start(command(pack, tiny_checkpoint, run, **flags), processes=2, digests=digests)  # type: ignore[arg-type]
    status, out, err = wait(process)
    assert status == 0, err
    assert out.count("24 steps done") == 1  # one of the two reports it
    assert bits(run) == bits(whole)
    assert (digests / "0").read_text() == (digests / "1").read_text()
    assert (run / WEIGHTS).is_file()

    status, _, err = wait(start(command(pack, tiny_checkpoint, run, **flags)))  # type: ignore[arg-type]
    assert status == 2
    assert "the number of training processes must be 2" in err
