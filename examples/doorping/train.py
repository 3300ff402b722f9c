"""Distills a dataset from a recipe, step by step; `decahub train doorping/fashion_mnist_dd` does the same.

    accelerate launch examples/doorping/train.py doorping/fashion_mnist_dd [--seed 1 ...]

`output_dir` then holds `model/`, a folder that `DistilledDataset.from_pretrained` loads, with scores and a card,
beside the checkpoints and the log of the run. If it is killed and started again, the run ends with the same images.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import set_seed

from decahub.hub import CardArguments, save_run
from decahub.procedures import doorping
from decahub.procedures.audit_page import draw_set
from decahub.procedures.data_arguments import load_splits
from decahub.training import load_recipe


@dataclass
class Arguments(CardArguments, doorping.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # Your own data: a folder as `dataset` in the recipe, or, for datasets that you made in Python with the same
    # columns, `splits = Splits(train=..., evaluation=..., label_names=[...])`.
    splits = load_splits(arguments, doorping.FAMILY)

    processor = doorping.build_processor(arguments)
    model = doorping.build_model(arguments, processor, splits.label_names)
    images, labels = doorping.read_images(splits.train, processor)
    real = doorping.build_real_images(model, images, labels, arguments.seed)

    result = doorping.distill(arguments, model, real)
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = doorping.measure(arguments, result.model, processor, splits.evaluation, splits.label_names)
    folder = save_run(
        arguments,
        result,
        processor,
        measurement,
        task=doorping.TASK,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
        images=draw_set(result.model, Path(arguments.output_dir)),
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
