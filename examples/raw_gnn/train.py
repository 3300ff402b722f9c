"""Trains RAW-GNN on one graph from a recipe, step by step; `decahub train raw_gnn/texas` does the same.

    accelerate launch examples/raw_gnn/train.py raw_gnn/texas [--split 3 --learning_rate 1e-2 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card, beside the
checkpoints and the log of the run. If it is killed and started again, the run continues where it stopped.
"""

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from decahub.hub import CardArguments, save_run
from decahub.procedures import raw_gnn
from decahub.procedures.data_arguments import load_graph
from decahub.tasks import evaluate_nodes
from decahub.training import load_recipe, train


@dataclass
class Arguments(CardArguments, raw_gnn.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # Your own graph: a folder as `dataset` in the recipe, or build the same dictionary of tensors `inputs` here.
    graph, label_names = load_graph(arguments)
    feature_extractor, inputs = raw_gnn.build_inputs(arguments, graph)

    # Your own model: replace these two. The loop takes any model that returns a `loss`.
    model = raw_gnn.build_model(arguments, inputs, label_names)
    update = raw_gnn.build_update(arguments, model)

    def evaluate(model, nodes=inputs["validation_mask"]):
        return evaluate_nodes(model, inputs, nodes)

    train_dataset, collate, loop_arguments = raw_gnn.build_train_dataset(arguments, inputs)
    result = train(
        model,
        update,
        train_dataset,
        loop_arguments,
        collate_fn=collate,
        evaluate=lambda model: evaluate(model).scores,
    )
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = evaluate(result.model, inputs["test_mask"])
    folder = save_run(
        arguments,
        result,
        feature_extractor,
        measurement,
        task=raw_gnn.TASK,
        dataset=arguments.dataset,
        split=f"test/{arguments.split}",
        minutes=(time.monotonic() - started) / 60,
        reports=raw_gnn.list_reports(arguments),
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
