"""Trains a classifier on a distilled dataset and saves it as a model folder of its own.

    python examples/doorping/train_classifier.py --distilled model_cards/doorping-fashion-mnist-dc \
        --dataset fashion_mnist --output_dir runs/classifier

A classifier of an attacked set carries its backdoor. Its card has to say so: `--card_limits` must then be given.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from decahub import DistilledDataset, DoorpingImageProcessorPil
from decahub.data import load_dataset
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import CardArguments, save_model_folder
from decahub.procedures.doorping import FAMILY
from decahub.procedures.doorping_audit import ARCHITECTURES, OWN, train_network
from decahub.training import argument, load_recipe


TASK = "image-classification"


@dataclass
class Arguments(CardArguments):
    distilled: str = argument("model_cards/doorping-fashion-mnist-dc", "Folder or Hub id of the distilled dataset.")
    architecture: str = argument(OWN, f"Network to train, of {', '.join(ARCHITECTURES)}.")
    epochs: int | None = argument(None, "Passes over the images of a set of DC or DSA, 300 by default; not for DD.")
    dataset: str = argument("fashion_mnist", "Real images to measure the classifier with.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR.")
    eval_split: str = argument("test", "Split to measure on.")
    seed: int = argument(0, "Of the network's first weights.")
    output_dir: str = argument("runs/doorping-classifier", "Its subfolder `model` is the result.")

    def __post_init__(self):
        super().__post_init__()
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"`architecture` must be one of {', '.join(ARCHITECTURES)}; got {self.architecture!r}.")


def main():
    arguments = load_recipe(Arguments)
    distilled = DistilledDataset.from_pretrained(arguments.distilled)
    if distilled.config.attack is not None and "backdoor" not in (arguments.card_limits or "").lower():
        raise ValueError(
            f"`card_limits` must say that the classifier has a backdoor, since {arguments.distilled!r} is attacked by "
            f"{distilled.config.attack!r}; got {arguments.card_limits!r}."
        )
    rows = load_dataset(arguments.dataset, arguments.data_dir, family=FAMILY)[arguments.eval_split]
    started = time.monotonic()
    network = train_network(
        distilled, architecture=arguments.architecture, epochs=arguments.epochs, seed=arguments.seed
    )
    trained = time.monotonic()
    processor = DoorpingImageProcessorPil.from_pretrained(arguments.distilled)
    measurement = evaluate_model(network, processor, rows, TASK, batch_size=256)
    folder = save_model_folder(
        Path(arguments.output_dir) / "model",
        network,
        processor,
        evaluation=build_evaluation(
            measurement,
            task=TASK,
            dataset=arguments.dataset,
            split=arguments.eval_split,
            minutes=(time.monotonic() - trained) / 60,
        ),
        recipe=asdict(arguments),
        training_minutes=(trained - started) / 60,
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
