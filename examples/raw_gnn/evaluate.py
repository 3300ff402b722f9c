"""Measures a model on the nodes of a graph and prints the scores.

    python examples/raw_gnn/evaluate.py --model model_cards/raw-gnn-texas --dataset texas [--split test/3] [--draws 8]

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
    model: str = argument("model_cards/raw-gnn-texas", "Model folder or Hub id.")
    dataset: str = argument("texas", "Name of a graph, or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    split: str = argument("test/0", "Part and number of the public split: train, validation or test.")
    draws: int | None = argument(None, "Average logits over this many draws of walks; by default as the model says.")


def main():
    arguments = load_recipe(Arguments)
    graphs = load_dataset(arguments.dataset, arguments.data_dir, family="node-classification")
    rows = select_split(graphs, arguments.split)
    feature_extractor = AutoFeatureExtractor.from_pretrained(arguments.model)
    changes = {} if arguments.draws is None else {"eval_walks": arguments.draws}
    model = AutoModelForNodeClassification.from_pretrained(arguments.model, **changes)
    label_names = list(DATASETS[arguments.dataset].label_names) if arguments.dataset in DATASETS else None
    scores = evaluate_model(model, feature_extractor, rows, "node-classification", label_names=label_names)
    for name, value in scores.items():
        print(f"{name:24} {value:.4f}")


if __name__ == "__main__":
    main()
