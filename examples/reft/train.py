"""Trains RefT from a recipe, step by step; `decahub train reft/refshapes` does the same.

    accelerate launch examples/reft/train.py reft/refshapes [--learning_rate 1e-4 ...]

`reft/refshapes` trains on base classes; `reft/fsis`, `reft/gfsis` and `reft/ifsis` go on from it with K shots of novel
classes. `output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores, a model card and the
support that was measured with. If it is killed and started again, the run continues where it stopped.
"""

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from decahub.hub import CardArguments, save_run
from decahub.procedures import reft
from decahub.training import load_recipe


@dataclass
class Arguments(CardArguments, reft.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # Your own data: a COCO folder as `dataset` in the recipe and your `novel_classes`, or, for datasets that you made
    # in Python with the same columns, `splits = reft.FewShotSplits(train=..., evaluation=..., novel_classes=[...])`.
    splits = reft.load_data(arguments)
    arguments = reft.set_length(arguments, splits)

    # Your own model: any `RefTForFewShotInstanceSegmentation`, such as one from Mask2Former
    # (`RefTForFewShotInstanceSegmentation.from_mask2former`).
    processor = reft.build_processor(arguments)
    reft.check_data(arguments, splits, processor)
    model = reft.build_model(arguments, splits, processor)

    result = reft.train_model(arguments, splits, processor, model)
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = reft.measure_result(arguments, result.model, processor, splits)
    folder = save_run(
        arguments,
        result,
        processor,
        measurement,
        task=reft.TASK,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
        images=reft.draw_examples(arguments, result.model, processor, splits.evaluation),
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
