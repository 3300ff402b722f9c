"""Trains a teacher on one graph, or distills a fair student from a teacher, step by step.

    accelerate launch examples/reliant/train.py reliant/teacher_gcn [--dataset german ...]
    accelerate launch examples/reliant/train.py reliant/distill_akd [--teacher FOLDER ...]

`decahub train reliant/distill_akd` does the same. `output_dir` then holds `model/`, a folder that `from_pretrained`
loads, with scores and a model card, beside the checkpoints and the log of the run. If it is killed and started again,
the run continues where it stopped.
"""

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from decahub.hub import CardArguments, save_run
from decahub.procedures import reliant
from decahub.procedures.data_arguments import load_graph
from decahub.tasks import evaluate_nodes
from decahub.training import load_recipe, train


@dataclass
class Arguments(CardArguments, reliant.Arguments): ...


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # Your own graph: a folder as `dataset` in the recipe, or build the same dictionary of tensors `inputs` here.
    graph, label_names = load_graph(arguments)
    feature_extractor, inputs = reliant.build_inputs(graph, arguments.split, arguments.feature_extractor)

    # Your own model: another student or teacher of `VARIANTS`, or its architecture by `config` in the recipe. Your own
    # teacher: any `TeacherKnowledge`, which is logits and embeddings of the nodes.
    knowledge = reliant.find_knowledge(arguments, graph)
    model = reliant.build_model(arguments.variant, arguments.config, inputs, label_names)
    updates, companions, batch = reliant.build_updates_of(arguments, model, inputs, knowledge)

    def evaluate(model, nodes=inputs["validation_mask"], with_loss=True):
        return evaluate_nodes(model, inputs, nodes, reliant.TASK, with_loss=with_loss)

    result = train(
        model,
        updates,
        [batch],
        arguments,
        collate_fn=lambda rows: rows[0],
        companions=companions,
        evaluate=lambda model: evaluate(model).scores,
    )
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = evaluate(result.model, inputs["test_mask"], with_loss=False)
    folder = save_run(
        arguments,
        result,
        feature_extractor,
        measurement,
        task=reliant.TASK,
        dataset=arguments.dataset,
        split=f"test/{arguments.split}",
        minutes=(time.monotonic() - started) / 60,
        images=arguments.images,
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
