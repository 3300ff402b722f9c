"""Trains EMO from a recipe, step by step; `decahub train emo/cifar10` does the same.

    accelerate launch examples/emo/train.py emo/cifar10 [--learning_rate 1e-3 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card, beside the
checkpoints and the log of the run. If it is killed and started again, the run continues where it stopped.
"""

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from decahub.hub import CardArguments, save_run
from decahub.procedures import emo
from decahub.procedures.data_arguments import check_splits, load_splits
from decahub.training import load_recipe, train


@dataclass
class Arguments(CardArguments, emo.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # Your own data: a folder as `dataset` in the recipe, or, for datasets that you made in Python with the same
    # columns, `splits = Splits(train=..., evaluation=..., label_names=[...])`.
    splits = load_splits(arguments, arguments.task)

    # Your own model: replace these four. The loop takes any model that returns a `loss`.
    processor = emo.build_processor(arguments)
    check_splits(arguments, splits, processor, arguments.task)
    model = emo.build_model(arguments, splits.label_names)
    teacher = emo.build_teacher(arguments, processor, splits.label_names)
    update = emo.build_update(arguments, model, teacher)

    def evaluate(model, rows=splits.monitor):
        return emo.measure(arguments, model, processor, rows, splits.label_names)

    result = train(
        model,
        update,
        emo.build_train_dataset(arguments, splits.train, processor),
        arguments,
        collate_fn=emo.get_collate(arguments, splits.label_names),
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
        task=arguments.task,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
