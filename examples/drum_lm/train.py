"""Fine-tunes a language model on drum grooves, or trains a small one from random weights, step by step.

    accelerate launch examples/drum_lm/train.py drum_lm/small [--learning_rate 1e-3 ...]

`decahub train drum_lm/small` does the same. `output_dir` then holds `model/`, a folder that `from_pretrained` and
`pipeline("drum-generation")` load, with scores and a model card, beside the checkpoints and the log of the run. If it
is killed and started again, the run continues where it stopped.
"""

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from decahub.hub import CardArguments, save_run
from decahub.procedures import drum_lm
from decahub.procedures.data_arguments import load_splits
from decahub.training import load_recipe, train


@dataclass
class Arguments(CardArguments, drum_lm.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # Your own grooves: a folder as `dataset` in the recipe, or, for datasets that you made in Python with a column
    # `midi`, `splits = Splits(train=..., evaluation=..., monitor=...)`.
    splits = load_splits(arguments, drum_lm.TASK)

    # Your own model: any causal language model as `backbone` in the recipe, or replace these three.
    processor = drum_lm.build_processor(arguments)
    model = drum_lm.build_model(arguments, processor)
    update = drum_lm.build_update(arguments, model)

    def evaluate(model, rows=splits.monitor):
        return drum_lm.measure(arguments, model, processor, rows)

    result = train(
        model,
        update,
        drum_lm.build_train_dataset(arguments, splits.train, processor),
        arguments,
        collate_fn=drum_lm.build_collate(arguments),
        evaluate=(lambda model: evaluate(model).scores) if arguments.eval_epochs or arguments.eval_steps else None,
    )
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = evaluate(result.model, splits.evaluation)
    minutes = (time.monotonic() - started) / 60
    folder = save_run(
        arguments,
        result,
        processor,
        measurement,
        task=drum_lm.TASK,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=minutes,
        images=drum_lm.draw_groove(arguments, result.model, processor, splits.evaluation[0]["midi"]),
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
