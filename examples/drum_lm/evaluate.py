"""Measures a model on grooves: bits for each sixteenth note, and the structure of what it writes.

    python examples/drum_lm/evaluate.py --model model_cards/drum-lm-small-groove [--split test] [--compose true]

With `--compose true` the model continues the first bars of every groove at once, and its texts are compared with the
human ones.
"""

import time
from dataclasses import dataclass

from transformers import AutoModelForCausalLM, AutoProcessor, pipeline

import decahub  # noqa: F401  (registers the models)
from decahub import load_metric
from decahub.data import load_dataset
from decahub.evaluation import evaluate_model
from decahub.training import argument, load_recipe


TASK = "drum-generation"


@dataclass
class Arguments:
    model: str = argument("model_cards/drum-lm-small-groove", "Model folder or Hub id.")
    base_model: str | None = argument(None, "Base of an adapter: folder, Hub id, or GGUF file.")
    dataset: str = argument("groove", "Name of a dataset, or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    split: str = argument("test", "Split to measure on.")
    limit: int | None = argument(None, "Measure at most this many grooves.")
    batch_size: int = argument(8, "Grooves of one forward pass.")
    compose: bool = argument(False, "Continue the grooves, too.")
    temperature: float = argument(0.9, "Of what is written.")
    seed: int = argument(0, "Of what is written.")


def main():
    arguments = load_recipe(Arguments)
    splits = load_dataset(arguments.dataset, arguments.data_dir, family=TASK)
    rows = splits[arguments.split]
    if arguments.limit is not None:
        rows = rows.select(range(min(arguments.limit, len(rows))))
    processor = AutoProcessor.from_pretrained(arguments.model)
    options = {} if arguments.base_model is None else {"base_model": arguments.base_model}
    model = AutoModelForCausalLM.from_pretrained(arguments.model, **options)
    scores = evaluate_model(model, processor, rows, TASK, batch_size=arguments.batch_size)
    if arguments.compose:
        compose = pipeline(TASK, model=model, processor=processor)

        def write_text(groove: bytes) -> str:
            return processor.to_text(processor.read(groove, allow_empty=True))

        started = time.monotonic()
        answers = compose(
            rows["midi"], bars=processor.bars, temperature=arguments.temperature, seed=arguments.seed, outputs=[]
        )
        scores["composing_minutes"] = (time.monotonic() - started) / 60
        structure = load_metric("drum_structure", keep_in_memory=True).compute(
            predictions=[answer[0]["text"] for answer in answers],
            references=[write_text(groove) for groove in rows["midi"]],
            train_texts=[write_text(groove) for groove in splits["train"]["midi"]],
            num_resamples=0,
        )
        scores |= {name: value for name, value in structure.items() if isinstance(value, float)}
    for name, value in scores.items():
        print(f"{name:24} {value:.4f}")


if __name__ == "__main__":
    main()
