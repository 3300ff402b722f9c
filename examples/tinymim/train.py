"""Trains one stage of TinyMIM from a recipe: a teacher, a student, a classifier or a segmenter, step by step.

    accelerate launch examples/tinymim/train.py tinymim/distill [--teacher FOLDER ...]

`decahub train tinymim/distill` does the same. `output_dir` then holds `model/`, a folder that `from_pretrained` loads,
with scores and a model card, beside the checkpoints and the log of the run. If it is killed and started again, the run
continues where it stopped.
"""

import dataclasses
import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from decahub.hub import CardArguments, save_run
from decahub.procedures import tinymim
from decahub.training import load_recipe, train


@dataclass
class Arguments(CardArguments, tinymim.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)
    stage = tinymim.get_stage(arguments.stage)

    # Your own data: a folder as `dataset` in the recipe, or, for datasets that you made in Python with the same
    # columns, `splits = Splits(train=..., evaluation=..., label_names=[...])`.
    splits = tinymim.load_data(arguments)
    processor = tinymim.build_processor(arguments)
    images = tinymim.decode_rows(splits.train, stage.decode_row)

    # Your own model: replace these two. Any vision transformer may teach (`teacher` in the recipe).
    model = stage.build_model(arguments, splits.label_names)
    update = tinymim.build_update(arguments, model)

    def evaluate(model, rows=splits.monitor):
        return tinymim.measure(arguments, model, processor, rows, splits)

    result = train(
        model,
        update,
        tinymim.build_dataset(arguments, images, processor),
        arguments,
        collate_fn=stage.build_collate(arguments, splits.label_names),
        evaluate=(lambda model: evaluate(stage.export(model)).scores)
        if tinymim.is_watched(arguments, splits)
        else None,
    )
    if not result.is_main_process:
        return

    # A stage of pre-training hands on the part that the next one starts from.
    result = dataclasses.replace(result, model=stage.export(result.model))
    started = time.monotonic()
    measurement = None if splits.evaluation is None else evaluate(result.model, splits.evaluation)
    folder = save_run(
        arguments,
        result,
        processor,
        measurement,
        task=stage.task,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
    )
    if measurement is not None:
        print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
