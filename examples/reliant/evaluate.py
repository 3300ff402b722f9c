"""Measures a model and its fairness on the nodes of a graph and prints the scores.

    python examples/reliant/evaluate.py --model model_cards/reliant-sgc-german --dataset german [--split test/reliant]

`decahub evaluate` does the same for a folder that knows its own dataset.
"""

from dataclasses import dataclass

from transformers import AutoFeatureExtractor

from decahub import AutoModelForNodeClassification
from decahub.data import DATASETS, load_dataset
from decahub.data.node_classification import select_split
from decahub.evaluation import evaluate_model
from decahub.training import argument, load_recipe


@dataclass
class Arguments:
    model: str = argument("model_cards/reliant-sgc-german", "Model folder or Hub id.")
    dataset: str = argument("german", "Name of a graph, or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    split: str = argument("test/0", "Part and split, by name or number: train, validation or test.")


def main():
    arguments = load_recipe(Arguments)
    graphs = load_dataset(arguments.dataset, arguments.data_dir, family="node-classification")
    rows = select_split(graphs, arguments.split)
    feature_extractor = AutoFeatureExtractor.from_pretrained(arguments.model)
    model = AutoModelForNodeClassification.from_pretrained(arguments.model)
    label_names = list(DATASETS[arguments.dataset].label_names) if arguments.dataset in DATASETS else None
    scores = evaluate_model(model, feature_extractor, rows, "fair-node-classification", label_names=label_names)
    for name, value in scores.items():
        print(f"{name:32} {value:.4f}")


if __name__ == "__main__":
    main()
