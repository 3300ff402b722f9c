"""Killed runs resume to the same bits, and what cannot be resumed from is refused.

The expected weights and logs are those of a run that nobody disturbed.
"""

import json
import multiprocessing
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from decahub.training import CheckpointError, LoopArguments
from decahub.training import checkpoint as checkpoint_module
from decahub.training import loop as loop_module
from decahub.training.ema import ExponentialMovingAverage
from decahub.training.train_log import TrainLog
from tests.tiny.training import WEIGHTS_FILE, ToyRows, kill_itself, run_toy


REPOSITORY = Path(__file__).parents[2]
NUM_STEPS = 19  # of 5 an epoch: the run ends within its fourth
KILLED = -9


def build_arguments(output_dir: Path, **changes) -> LoopArguments:
    values = {
        "max_steps": NUM_STEPS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.9,
        "max_grad_norm": 1.0,
        "warmup_steps": 3,
        "save_steps": 4,
        "logging_steps": 3,
        "eval_steps": 7,
    }
    return LoopArguments(output_dir=str(output_dir), **{**values, **changes})


def save_result(arguments: LoopArguments, before_step: Callable[[], None] = lambda: None) -> None:
    result = run_toy(arguments, before_step)
    if result.is_main_process:
        save_file(result.model.state_dict(), Path(arguments.output_dir) / WEIGHTS_FILE)


def run_in_fork(function: Callable, *args) -> int:
    """Exit code of a process that calls `function`: a fork, since importing torch anew takes seconds."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    process.join()
    return process.exitcode


def read_log(output_dir: Path) -> list[dict]:
    """The log without what depends on the clock."""
    records = [json.loads(line) for line in (output_dir / "train_log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "samples_per_second"} for record in records]


def list_folder(output_dir: Path) -> list[str]:
    return sorted(path.name for path in output_dir.iterdir() if path.is_dir())


def assert_same_result(output_dir: Path, expected_dir: Path) -> None:
    weights, expected = load_file(output_dir / WEIGHTS_FILE), load_file(expected_dir / WEIGHTS_FILE)
    assert weights.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    assert read_log(output_dir) == read_log(expected_dir)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("undisturbed")
    save_result(build_arguments(output_dir, save_total_limit=None))
    return output_dir


# A moment is a function that arranges, in the process to be killed, that it ends itself at some point.


def kill_at_call(number: int) -> Callable[[], None]:
    """Something to be called often, which ends the process at its `number`-th call."""
    calls = 0

    def count(*args, **kwargs) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            kill_itself()

    return count


def kill_in_a_step(arguments: LoopArguments) -> None:
    number_of_step_calls = 2 * NUM_STEPS  # two micro-batches a step
    save_result(arguments, kill_at_call(random.Random(arguments.output_dir[-1]).randrange(1, number_of_step_calls)))


def kill_while_saving(arguments: LoopArguments) -> None:
    count, save = kill_at_call(3), ExponentialMovingAverage.save
    ExponentialMovingAverage.save = lambda ema, path: (count(), save(ema, path))
    save_result(arguments)


def kill_before_renaming(arguments: LoopArguments) -> None:
    count, replace = kill_at_call(2), os.replace
    checkpoint_module.os.replace = lambda *paths: (count(), replace(*paths))
    save_result(arguments)


def kill_while_deleting(arguments: LoopArguments) -> None:
    def delete_half(path: Path) -> None:
        (path / "model.safetensors").unlink()
        kill_itself()

    checkpoint_module.shutil.rmtree = delete_half
    save_result(arguments)


def kill_while_logging(arguments: LoopArguments) -> None:
    append = TrainLog.append

    def write_half(log: TrainLog, record: dict) -> None:
        if record["step"] > 10:
            with log.path.open("a") as file:
                file.write(json.dumps(record)[:25])
            kill_itself()
        append(log, record)

    TrainLog.append = write_half
    save_result(arguments)


MOMENTS = {
    "in-a-step": kill_in_a_step,
    "while-saving": kill_while_saving,
    "before-renaming": kill_before_renaming,
    "while-deleting": kill_while_deleting,
    "while-logging": kill_while_logging,
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_killed_run_ends_with_the_same_bits(moment, tmp_path, undisturbed):
    arguments = build_arguments(tmp_path)

    exit_code = run_in_fork(moment, arguments)
    save_result(arguments)

    assert exit_code == KILLED
    assert_same_result(tmp_path, undisturbed)
    assert list_folder(tmp_path) == ["checkpoint-16", "checkpoint-19"]


@pytest.mark.parametrize("seed", [2, 3])
def test_run_that_is_killed_again_and_again_ends_with_the_same_bits(seed, tmp_path, undisturbed):
    arguments, draw = build_arguments(tmp_path, save_steps=1), random.Random(seed)

    for _ in range(3):
        run_in_fork(save_result, arguments, kill_at_call(draw.randrange(2, 14)))
    save_result(arguments)

    assert_same_result(tmp_path, undisturbed)


def test_failing_last_evaluation_loses_nothing(tmp_path, undisturbed):
    def fail_at_the_end(log: TrainLog, record: dict) -> None:
        append(log, record)
        if record["step"] == NUM_STEPS and "eval_norm" in record:
            kill_itself()

    append = TrainLog.append
    arguments = build_arguments(tmp_path, save_steps=None)

    def train_and_die() -> None:
        TrainLog.append = fail_at_the_end
        save_result(arguments)

    exit_code = run_in_fork(train_and_die)
    kept = list_folder(tmp_path)
    save_result(arguments)

    assert exit_code == KILLED
    assert kept == [f"checkpoint-{NUM_STEPS}"]
    assert_same_result(tmp_path, undisturbed)


def test_finished_run_started_again_returns_the_same(tmp_path, undisturbed):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    (tmp_path / WEIGHTS_FILE).unlink()

    save_result(build_arguments(tmp_path, save_total_limit=None))

    assert_same_result(tmp_path, undisturbed)


def test_resumes_from_the_checkpoint_that_is_named(tmp_path, undisturbed):
    arguments = build_arguments(tmp_path, resume_from_checkpoint=str(undisturbed / "checkpoint-12"))

    save_result(arguments)

    expected = load_file(undisturbed / WEIGHTS_FILE)
    torch.testing.assert_close(load_file(tmp_path / WEIGHTS_FILE), expected, rtol=0, atol=0)


# Early stopping

STOPPING = {"eval_steps": 1, "metric_for_best_model": "nearness", "early_stopping_patience": 5}
STOPPED_AT = 11  # the score is at its highest after step 6, between two checkpoints


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("stopped-early")
    save_result(build_arguments(output_dir, **STOPPING))
    return output_dir


@pytest.mark.parametrize("call", [13, 17, 21], ids=["just-after-the-best", "at-a-checkpoint", "before-the-end"])
def test_killed_run_stops_early_at_the_same_step(call, tmp_path, stopped_early):
    arguments = build_arguments(tmp_path, **STOPPING)

    exit_code = run_in_fork(save_result, arguments, kill_at_call(call))
    save_result(arguments)

    assert exit_code == KILLED
    assert_same_result(tmp_path, stopped_early)
    assert list_folder(tmp_path) == ["checkpoint-11", "checkpoint-8"]
    assert [record["step"] for record in read_log(tmp_path) if "stop_reason" in record] == [STOPPED_AT]


# Two processes


def get_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two_processes(arguments: LoopArguments, kill_at: int | None = None) -> list[int]:
    """Exit codes of two forks that train together; both end themselves in the `kill_at`-th step call."""
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(get_free_port())}

    def run_rank(rank: int) -> None:
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        sys.modules["accelerate.state"].PartialState._shared_state.clear()  # the parent had one process
        sys.modules["accelerate.state"].AcceleratorState._shared_state.clear()
        save_result(arguments, kill_at_call(kill_at) if kill_at else lambda: None)

    processes = [multiprocessing.get_context("fork").Process(target=run_rank, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def list_rates(output_dir: Path) -> list[float]:
    return [record["model/learning_rate"] for record in read_log(output_dir) if "model/learning_rate" in record]


def test_two_killed_processes_end_with_the_same_bits(tmp_path, undisturbed):
    expected_dir, output_dir = tmp_path / "expected", tmp_path / "killed"
    expected = build_arguments(expected_dir, per_device_train_batch_size=2)
    killed = build_arguments(output_dir, per_device_train_batch_size=2)

    assert run_two_processes(expected) == [0, 0]
    assert run_two_processes(killed, kill_at=23) == [KILLED, KILLED]
    assert run_two_processes(killed) == [0, 0]

    assert json.loads((output_dir / "checkpoint-19/progress.json").read_text())["settings"]["num_processes"] == 2
    assert_same_result(output_dir, expected_dir)
    assert list_rates(output_dir) == list_rates(undisturbed)  # Accelerate would have stepped schedules twice as often


def test_two_processes_stop_early_together(tmp_path):
    arguments = build_arguments(tmp_path, per_device_train_batch_size=2, **STOPPING)

    assert run_two_processes(arguments) == [0, 0]

    assert list_folder(tmp_path) == ["checkpoint-11", "checkpoint-8"]


LAUNCHERS = {
    "accelerate": ([sys.executable, "-m", "accelerate.commands.launch", "--cpu"], 1),
    "torchrun": ([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"], 2),
}


@pytest.mark.parametrize(("command", "num_processes"), LAUNCHERS.values(), ids=LAUNCHERS)
def test_runs_under_launcher(command, num_processes, tmp_path):
    options = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--output_dir", str(tmp_path)]

    finished = subprocess.run(
        [*command, "tests/tiny/training.py", *options],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().splitlines()[-1] == f"processes: {num_processes}"
    assert (tmp_path / "checkpoint-2").is_dir()


# Errors of the disk


def train_on_small_disk(arguments: LoopArguments, limit: int) -> None:
    """Train where no file can grow beyond `limit` bytes once there is a first checkpoint."""
    save = checkpoint_module.CheckpointFolder.save

    def save_and_shrink(folder, *args):
        path = save(folder, *args)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return path

    checkpoint_module.CheckpointFolder.save = save_and_shrink
    with pytest.raises(OSError, match=r"`checkpoint-8` could not be written .*whole \(checkpoint-4\)"):
        run_toy(arguments)


@pytest.mark.parametrize("limit", [600, 1600], ids=["weights", "optimizer"])
def test_full_disk_leaves_the_checkpoint_before(limit, tmp_path, undisturbed):
    arguments = build_arguments(tmp_path, logging_steps=NUM_STEPS, eval_steps=None)

    exit_code = run_in_fork(train_on_small_disk, arguments, limit)

    assert exit_code == 0
    assert list_folder(tmp_path) == ["checkpoint-4"]
    save_result(arguments)
    expected = load_file(undisturbed / WEIGHTS_FILE)
    torch.testing.assert_close(load_file(tmp_path / WEIGHTS_FILE), expected, rtol=0, atol=0)


@pytest.fixture
def stopped(tmp_path, undisturbed) -> Path:
    """Folder of a run that was stopped after step 12."""
    for step in (8, 12):
        shutil.copytree(undisturbed / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    shutil.copy(undisturbed / "train_log.jsonl", tmp_path)
    return tmp_path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "truncated-weights": (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors was altered"),
    "altered-optimizer": (lambda folder: alter(folder / "optimizer.bin"), "optimizer.bin was altered"),
    "missing-average": (lambda folder: (folder / "ema.safetensors").unlink(), "ema.safetensors is missing"),
    "truncated-progress": (lambda folder: truncate(folder / "progress.json"), "progress.json is not readable"),
    "missing-progress": (lambda folder: (folder / "progress.json").unlink(), "progress.json is missing"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_newest_checkpoint_is_skipped_and_named(damage, message, stopped, undisturbed, caplog):
    damage(stopped / "checkpoint-12")

    save_result(build_arguments(stopped))

    assert f"checkpoint-12 is skipped: {message}" in caplog.text
    assert_same_result(stopped, undisturbed)


def test_damaged_newer_checkpoint_does_not_push_out_an_intact_one(stopped):
    truncate(stopped / "checkpoint-12/model.safetensors")
    arguments = build_arguments(stopped, save_steps=1, save_total_limit=1)

    exit_code = run_in_fork(save_result, arguments, kill_at_call(3))  # in the step after 9

    assert exit_code == KILLED
    assert list_folder(stopped) == ["checkpoint-12", "checkpoint-9"]


def test_refuses_a_folder_without_intact_checkpoint(stopped):
    for name in ("checkpoint-8", "checkpoint-12"):
        truncate(stopped / name / "model.safetensors")

    with pytest.raises(
        CheckpointError, match=r"`output_dir` must hold an intact checkpoint.*none of the 2 in .*12: model"
    ):
        run_toy(build_arguments(stopped))


def test_refuses_a_named_checkpoint_that_is_damaged(stopped):
    truncate(stopped / "checkpoint-12/ema.safetensors")
    arguments = build_arguments(stopped, resume_from_checkpoint=str(stopped / "checkpoint-12"))

    with pytest.raises(
        CheckpointError, match=r"`resume_from_checkpoint` must be an intact.*ema.safetensors was altered"
    ):
        run_toy(arguments)


REFUSALS = {
    "batch-size": ({"per_device_train_batch_size": 8}, "`per_device_train_batch_size` must be 4 as in .*12; got 8"),
    "seed": ({"seed": 5}, "`seed` must be 0 as in .*12; got 5"),
    "no-average": ({"ema_decay": None}, "`ema_decay` must be 0.9 as in .*12; got None"),
    "shorter": ({"max_steps": 10}, "`max_steps` must be 19 as in .*12; got 10"),
    "learning-rate": ({"learning_rate": 1e-5}, "`learning_rate` must be 0.001 as in .*12; got 1e-05. Start with"),
    "several": (
        {"weight_decay": 0.1, "eval_steps": 2, "learning_rate": 1.0},
        r"`learning_rate` must be 0.001 .* got 1.0 \(2 more differ: weight_decay, eval_steps\)",
    ),
    "anew": ({"resume_from_checkpoint": "none"}, "must not hold later checkpoints.* got checkpoint-12, checkpoint-8"),
    "absent": ({"resume_from_checkpoint": "checkpoint-99"}, "got 'checkpoint-99': there is no such folder"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refuses_to_resume_another_run(changes, message, stopped):
    before = list_folder(stopped)

    with pytest.raises(CheckpointError, match=message):
        run_toy(build_arguments(stopped, **changes))

    assert list_folder(stopped) == before


def test_refuses_other_data(stopped):
    rows = ToyRows()
    rows.labels[17] = (rows.labels[17] + 1) % 3

    with pytest.raises(CheckpointError, match="`train_dataset` must be 'data .*' as in .*12; got 'data "):
        run_toy(build_arguments(stopped), rows=rows)


def test_finished_run_is_refused_with_another_recipe(tmp_path, undisturbed):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)

    with pytest.raises(CheckpointError, match="`weight_decay` must be 0.0 as in .*19; got 0.5"):
        run_toy(build_arguments(tmp_path, save_total_limit=None, weight_decay=0.5))


def test_resumes_with_other_output_logging_and_workers(stopped, undisturbed):
    changes = {"logging_steps": 1, "save_steps": None, "dataloader_num_workers": 2, "per_device_eval_batch_size": 1}

    save_result(build_arguments(stopped, **changes))

    expected = load_file(undisturbed / WEIGHTS_FILE)
    torch.testing.assert_close(load_file(stopped / WEIGHTS_FILE), expected, rtol=0, atol=0)


def test_resumes_from_a_checkpoint_without_fingerprints(stopped, undisturbed):
    for path in stopped.glob("checkpoint-*/progress.json"):
        progress = json.loads(path.read_text())
        del progress["recipe"], progress["data"]
        path.write_text(json.dumps(progress))

    save_result(build_arguments(stopped))

    assert_same_result(stopped, undisturbed)
    with pytest.raises(CheckpointError, match="`learning_rate` must be 0.001"):  # known by now
        run_toy(build_arguments(stopped, learning_rate=1.0))


def test_old_checkpoint_is_refused_for_another_batch_size(stopped):
    path = stopped / "checkpoint-12/progress.json"
    progress = json.loads(path.read_text())
    path.write_text(json.dumps({**progress, "recipe": {}}))

    with pytest.raises(CheckpointError, match="`per_device_train_batch_size` must be 4 as in .*12; got 8"):
        run_toy(build_arguments(stopped, per_device_train_batch_size=8))
    with pytest.raises(CheckpointError, match="at least the 12 steps of .*; got 10"):
        run_toy(build_arguments(stopped, max_steps=10))
    with pytest.raises(CheckpointError, match="`ema_decay` must be set or unset as it was in checkpoint-12; got None"):
        run_toy(build_arguments(stopped, ema_decay=None))


def test_console_says_where_the_run_goes_on(stopped, capsys):
    save_result(build_arguments(stopped))
    resumed = capsys.readouterr().err
    save_result(build_arguments(stopped))
    finished = capsys.readouterr().err

    assert "Resumed from step 12 of 19 (" in resumed
    assert f"{stopped} is already finished at step 19; nothing to train." in finished


# The best weights

BEST = {"eval_steps": 1, "metric_for_best_model": "nearness"}


@pytest.fixture(scope="module")
def undisturbed_best(tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("undisturbed-best")
    save_result(build_arguments(output_dir, **BEST))
    return output_dir


@pytest.mark.parametrize("damage", [alter, truncate, Path.unlink], ids=["altered", "truncated", "lost"])
def test_damaged_best_weights_are_named_and_found_again(damage, tmp_path, undisturbed_best, caplog):
    shutil.copytree(undisturbed_best, tmp_path, dirs_exist_ok=True)
    damage(next(tmp_path.glob("checkpoint-19/best-*.safetensors")))

    save_result(build_arguments(tmp_path, **BEST))

    assert "checkpoint-19 is skipped: best-" in caplog.text
    assert_same_result(tmp_path, undisturbed_best)


def test_a_finished_run_whose_best_weights_are_all_damaged_says_that_they_are_lost(tmp_path, undisturbed_best):
    shutil.copytree(undisturbed_best, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("checkpoint-*/best-*.safetensors"):
        alter(path)

    with pytest.raises(
        CheckpointError,
        match=r"must hold the best weights of a finished run; best-\d+.safetensors was altered .*, are lost, and "
        "there is nothing left to train",
    ):
        run_toy(build_arguments(tmp_path, **BEST))


@pytest.mark.parametrize("damage", [alter, truncate, Path.unlink], ids=["altered", "truncated", "lost"])
def test_a_run_goes_on_without_best_weights_that_are_lost(damage, tmp_path, undisturbed_best, caplog):
    shutil.copytree(undisturbed_best, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoint-19")
    (tmp_path / WEIGHTS_FILE).unlink()
    for path in tmp_path.glob("checkpoint-*/best-*.safetensors"):
        damage(path)

    result = run_toy(build_arguments(tmp_path, **BEST))

    assert "are lost. The run goes on, and keeps the best of the evaluations to come." in caplog.text
    later = [record for record in read_log(undisturbed_best) if record.get("step", 0) > 16]
    scores = [record["eval_nearness"] for record in later if "eval_nearness" in record]
    assert len(scores) == 3
    assert result.metrics["nearness"] == pytest.approx(max(scores), rel=1e-6)
    assert any("are lost" in record.get("note", "") for record in read_log(tmp_path))
    checkpoint = next(tmp_path.glob("checkpoint-19"))
    assert checkpoint_module.find_problem(checkpoint) is None


def test_other_damage_is_still_refused(tmp_path, undisturbed_best):
    shutil.copytree(undisturbed_best, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("checkpoint-*"):
        alter(path / "model.safetensors")
        alter(next(path.glob("best-*.safetensors")))

    with pytest.raises(CheckpointError, match="must hold an intact checkpoint to resume from"):
        run_toy(build_arguments(tmp_path, **BEST))


@pytest.mark.parametrize("call", [1, 2, 3])  # two checkpoints, and the counters after the last evaluation
def test_best_weights_and_checkpoint_agree_after_a_kill_at_any_move(call, tmp_path):
    # The last evaluation is the best one, so that its weights go into a checkpoint that is already there.
    changes = {"metric_for_best_model": "norm", "eval_steps": 5, "save_steps": 8, "max_steps": 12}
    killed, expected = build_arguments(tmp_path / "killed", **changes), build_arguments(tmp_path / "whole", **changes)

    def train_and_die() -> None:
        count, replace = kill_at_call(call), os.replace
        checkpoint_module.os.replace = lambda *paths: (count(), replace(*paths))
        save_result(killed)

    exit_code = run_in_fork(train_and_die)
    save_result(killed)
    save_result(expected)

    assert exit_code == KILLED
    assert_same_result(tmp_path / "killed", tmp_path / "whole")
    assert [path.name for path in (tmp_path / "killed/checkpoint-12").glob("best-*")] == ["best-12.safetensors"]


def test_best_weights_beside_the_checkpoints_are_still_read(tmp_path, undisturbed_best):
    """As runs left them that began before the best weights were part of a checkpoint."""
    shutil.copytree(undisturbed_best, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("checkpoint-*/progress.json"):
        best = next(path.parent.glob("best-*"))
        progress = json.loads(path.read_text())
        del progress["best_step"], progress["files"][best.name]
        path.write_text(json.dumps(progress))
        best.replace(tmp_path / "best.safetensors")

    save_result(build_arguments(tmp_path, **BEST))

    assert_same_result(tmp_path, undisturbed_best)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match="`output_dir` must hold best.safetensors"):
        run_toy(build_arguments(tmp_path, **BEST))


# One run a folder


def test_refuses_a_second_run_in_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "LOCK_SECONDS", 0.0)
    refusals = []

    def start_another() -> None:
        if not refusals:
            with pytest.raises(CheckpointError, match=f"one run at a time; another process trains in {tmp_path}"):
                run_toy(build_arguments(tmp_path))
            refusals.append(run_in_fork(start_in_fork))

    def start_in_fork() -> None:
        with pytest.raises(CheckpointError, match="one run at a time"):
            run_toy(build_arguments(tmp_path))

    run_toy(build_arguments(tmp_path), start_another)

    assert refusals == [0]


def test_killed_run_leaves_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "LOCK_SECONDS", 0.0)
    arguments = build_arguments(tmp_path, max_steps=2)

    exit_code = run_in_fork(save_result, arguments, kill_at_call(2))
    save_result(arguments)

    assert exit_code == KILLED
    assert (tmp_path / "checkpoint-2").is_dir()


def test_refuses_to_leave_out_later_checkpoints(stopped):
    arguments = build_arguments(stopped, resume_from_checkpoint=str(stopped / "checkpoint-8"))

    with pytest.raises(CheckpointError, match=r"must not hold later checkpoints.* got checkpoint-12 in"):
        run_toy(arguments)
