"""Examines whether pre-training on text helps a language model to write drums, over several seeds.

    accelerate launch examples/drum_lm/reproduce.py drum_lm/reproduce [--arms '[random]' --seeds '[29]']

Two arms of one architecture, with the weights of a pre-trained model and with random ones, learn from the same grooves
in the same order for the same number of steps. Each tries the same learning rates first and goes on with its best.
Each run is kept in `output_dir`; started again, the script goes on where it was. Arms and seeds may be shared out
among processes; with `--arms '[]'` only the results of what is finished are written (see `results.py`).
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from results import TEXTS_SUFFIX, name_run, write_results
from transformers import AutoModelForCausalLM, AutoProcessor, pipeline

from decahub import load_metric
from decahub.data import SeededTransform, drum_generation, load_dataset
from decahub.evaluation import run_once, write_json
from decahub.procedures import drum_lm
from decahub.procedures.data_arguments import Splits
from decahub.tasks import get_task
from decahub.training import argument, load_recipe
from decahub.training.train_log import EVALUATED


@dataclass
class Arguments:
    arms: list[str] = argument(["pretrained", "random"], "Arms to run now; results hold whatever has been run.")
    seeds: list[int] = argument([29, 30, 31], "One run of each arm for each seed, with the arm's best rate.")
    learning_rates: list[float] = argument([3e-5, 1e-4, 3e-4], "Rates that each arm tries.")
    sweep_seed: int = argument(0, "Seed of the runs that try rates.")
    sweep_steps: int = argument(40, "Steps of those runs.")
    backbone: str | None = argument(None, "Causal language model: folder, Hub id, or GGUF file.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    shared: dict = argument({}, "Arguments of all runs (`decahub.procedures.drum_lm`).")
    settings: dict = argument({}, "For each arm its own arguments.")
    num_curve_grooves: int = argument(12, "Validation grooves of the learning curve and of the choice of a rate.")
    sampled_seeds: list[int] = argument([29], "Seeds whose models continue the first bars of the test grooves.")
    sampled_models: list[str] = argument([], "Model folders or Hub ids that continue them, too.")
    num_sampled: int | None = argument(None, "Continue at most this many of them.")
    output_dir: str = argument("runs/drum_lm-reproduce", "Folder of the runs.")
    results_dir: str = argument("docs/results", "Folder of the results.")


def build_arguments(arguments: Arguments, arm: str, rate: float, seed: int, steps: int | None) -> drum_lm.Arguments:
    """Arguments of one run; `steps` of those that try rates."""
    fields = {"backbone": arguments.backbone, "data_dir": arguments.data_dir, **arguments.shared}
    fields |= {**arguments.settings[arm], "learning_rate": rate, "seed": seed}
    if steps is not None:
        fields |= {"max_steps": steps, "eval_steps": steps}
    folder = Path(arguments.output_dir) / name_run(arm, fields)
    return drum_lm.Arguments(**fields, max_eval_samples=arguments.num_curve_grooves, output_dir=str(folder))


def read_curve(path: Path) -> list[dict[str, float]]:
    """Bits per step of the learning curve, from the log of a run."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    key = f"{EVALUATED}bits_per_step"
    return [{"step": row["step"], "bits_per_step": row[key]} for row in rows if key in row]


def train_once(run: drum_lm.Arguments, splits: Any, arguments: Arguments, is_trial: bool) -> dict:
    """Outcome of one run."""
    set_seed(run.seed)
    processor = drum_lm.build_processor(run)
    model = drum_lm.build_model(run, processor)
    outcome: dict[str, Any] = {"learning_rate": run.learning_rate, "seed": run.seed}
    if not is_trial:
        before = drum_lm.measure(run, model, processor, splits["validation"]).scores["bits_per_step"]
        outcome["curve"] = [{"step": 0, "bits_per_step": before}]
    rows = Splits(splits["train"], monitor=splits[run.monitor_split])
    result = drum_lm.train_model(run, rows, processor, model)
    outcome["curve"] = outcome.get("curve", []) + read_curve(result.train_log)
    outcome |= {"steps": result.step, "minutes": result.minutes}
    outcome["num_parameters"] = result.model.num_parameters()
    if not is_trial:
        whole = dataclasses.replace(run, max_eval_samples=None)
        for split in ("validation", "test"):
            outcome[split] = drum_lm.measure(whole, result.model, processor, splits[split]).scores
        outcome["validation excerpts"] = measure_excerpts(run, result.model, processor, splits["validation"])
        if run.seed in arguments.sampled_seeds:
            outcome["texts"] = continue_prompts(result.model, processor, splits["test"], arguments)
    for checkpoint in Path(run.output_dir).glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return outcome


@torch.inference_mode()
def measure_excerpts(run: drum_lm.Arguments, model: Any, processor: Any, rows: Any) -> dict[str, float]:
    """Scores of excerpts as they are trained on: a model from random weights knows no later positions."""
    transform = drum_generation.build_train_transform(processor, **run.augmentation)
    excerpts = SeededTransform(drum_generation.read_grooves(rows, processor), transform, seed=0)
    metric = load_metric("drum_structure", keep_in_memory=True)
    for first in range(0, len(excerpts), run.per_device_eval_batch_size):
        numbers = range(first, min(first + run.per_device_eval_batch_size, len(excerpts)))
        batch = drum_generation.collate([excerpts[number] for number in numbers])
        metric.add_batch(**get_task(drum_lm.TASK).predict(model, processor, batch))
    return get_task(drum_lm.TASK).summarize(metric.compute(num_resamples=0), ())


def continue_prompts(model: Any, processor: Any, rows: Any, arguments: Arguments) -> list[str]:
    """Texts of the test grooves, their first bars given."""
    if arguments.num_sampled is not None:
        rows = rows.select(range(min(arguments.num_sampled, len(rows))))
    compose = pipeline(drum_lm.TASK, model=model, processor=processor)
    answers = compose(rows["midi"], bars=processor.bars, outputs=[], seed=0)
    return [answer[0]["text"] for answer in answers]


def sample_model(name: str, rows: Any, arguments: Arguments) -> None:
    """Write what a published model makes of the prompts, unless that is done."""
    path = Path(arguments.output_dir) / f"{Path(name).name}{TEXTS_SUFFIX}"
    if not path.exists():
        model = AutoModelForCausalLM.from_pretrained(name, base_model=arguments.backbone)  # if it is of adapters
        processor = AutoProcessor.from_pretrained(name)
        write_json(path, {"texts": continue_prompts(model, processor, rows, arguments)})


def choose_rate(arm: str, splits: Any, arguments: Arguments) -> float:
    """The rate with the fewest bits per step at the end of its trial."""
    bits = {}
    for rate in arguments.learning_rates:
        run = build_arguments(arguments, arm, rate, arguments.sweep_seed, arguments.sweep_steps)
        outcome = run_once(run.output_dir, partial(train_once, run, splits, arguments, is_trial=True))
        bits[rate] = outcome["curve"][-1]["bits_per_step"]
        print(f"{arm:12} rate {rate:g} bits per step {bits[rate]:.3f}", flush=True)
    return min(bits, key=bits.__getitem__)


def main():
    arguments = load_recipe(Arguments)
    unknown = [arm for arm in arguments.arms if arm not in arguments.settings]
    if unknown:
        raise ValueError(f"`arms` must be among {', '.join(arguments.settings)}; got {', '.join(unknown)}.")
    splits = load_dataset(arguments.shared.get("dataset", "groove"), arguments.data_dir, family=drum_lm.TASK)
    rates = {arm: choose_rate(arm, splits, arguments) for arm in arguments.arms}
    for seed in arguments.seeds:
        for arm in arguments.arms:
            run = build_arguments(arguments, arm, rates[arm], seed, None)
            outcome = run_once(run.output_dir, partial(train_once, run, splits, arguments, is_trial=False))
            write_json(Path(arguments.output_dir) / f"{arm}-seed{seed}.json", {"arm": arm, **outcome})
            print(f"{arm:12} seed {seed} bits per step {outcome['validation']['bits_per_step']:.3f}", flush=True)
    for name in arguments.sampled_models:
        sample_model(name, splits["test"], arguments)
    write_results(Path(arguments.output_dir), Path(arguments.results_dir), splits)


if __name__ == "__main__":
    main()
