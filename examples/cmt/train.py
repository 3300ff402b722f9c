"""Trains CMT from a recipe, step by step; `decahub train cmt/driving_scenes` does the same.

    accelerate launch examples/cmt/train.py cmt/driving_scenes [--learning_rate 1e-3 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card, beside the
checkpoints and the log of the run. If it is killed and started again, the run continues where it stopped.
"""

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from decahub.data.object_detection_3d import collate
from decahub.hub import CardArguments, save_run
from decahub.procedures import cmt
from decahub.procedures.data_arguments import load_splits
from decahub.training import load_recipe, train


@dataclass
class Arguments(CardArguments, cmt.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # Your own data: a folder as `dataset` in the recipe, or, for datasets that you made in Python with the same
    # columns, `splits = Splits(train=..., evaluation=..., label_names=[...])`.
    splits = load_splits(arguments, cmt.TASK)

    # Your own model: replace these. The loop takes any model that returns a `loss`.
    model = cmt.build_model(arguments, splits.label_names)
    processor = cmt.build_processor(arguments, model.config)
    cmt.check_frames(splits, processor)
    update = cmt.build_update(arguments, model)

    def evaluate(model, rows=splits.monitor):
        return cmt.measure(arguments, model, processor, rows, splits.label_names)

    result = train(
        model,
        update,
        cmt.build_train_dataset(arguments, splits.train, processor, splits.label_names),
        arguments,
        collate_fn=collate,
        evaluate=lambda model: evaluate(model).scores,
    )
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = evaluate(result.model, splits.evaluation)
    folder = save_run(
        arguments,
        result,
        processor,
        measurement,
        task=cmt.TASK,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
