"""Trains a teacher, distills a student, or fine-tunes a classifier or segmenter, from a recipe.

    accelerate launch examples/tinymim/train.py examples/tinymim/distill.yaml [--teacher FOLDER ...]

The recipe's `stage` says which (see `stages.py`). `output_dir` then holds `model/`, a folder that `from_pretrained`
loads, with scores and a model card, beside the checkpoints and the log of the run. Killed and started again, the run
goes on where it was.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import set_seed
from stages import StageArguments, get_stage, measure, run_stage

from decahub.data import load_dataset
from decahub.evaluation import build_evaluation
from decahub.hub import CardArguments, save_model_folder
from decahub.training import load_recipe


@dataclass
class Arguments(CardArguments, StageArguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)
    stage = get_stage(arguments.stage)

    # To use your own data: `dataset: path/to/folder` in the recipe, or build two datasets with the same columns here.
    splits = load_dataset(arguments.dataset, arguments.data_dir, family=stage.family)
    if arguments.eval_split not in splits:
        raise ValueError(f"`eval_split` must be one of {', '.join(splits)}; got {arguments.eval_split!r}.")
    result, processor = run_stage(arguments, splits)
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = measure(arguments, result.model, processor, splits)
    evaluation = build_evaluation(
        measurement,
        task=stage.task,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
    )
    folder = save_model_folder(
        Path(arguments.output_dir) / "model",
        result.model,
        processor,
        evaluation=evaluation,
        recipe=dataclasses.asdict(arguments),
        train_log=result.train_log,
        training_minutes=result.minutes,
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
