"""Compares RELIANT with plain distillation and with the teacher, over several datasets, students and seeds.

    accelerate launch examples/reliant/reproduce.py reliant/reproduce [--datasets '[german]']

A run is a teacher, or a student of the teacher of the same seed. Plain distillation is the same student without proxy
and penalty. Every run is kept in `output_dir`; started again, the script goes on where it was. Results and images go
to `docs/results` (see `results.py`).
"""

import dataclasses
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate.utils import set_seed
from results import MAJORITY, PLAIN, write_results
from torch.nn import functional

from decahub import load_metric
from decahub.data import load_dataset
from decahub.evaluation import run_once, write_json
from decahub.models.reliant.knowledge import TeacherKnowledge
from decahub.procedures.reliant import TASK, DistillationArguments, build_inputs, build_model, build_updates_of
from decahub.tasks import evaluate_parts, get_task, join_scores
from decahub.training import argument, load_recipe, train


# Plain distillation has neither columns for a proxy nor a penalty.
PLAIN_FIELDS = {"proxy_mode": "none", "fairness_weight": 0.0}


@dataclass
class Arguments(DistillationArguments):
    datasets: list[str] = argument(["german"], "Graphs to run now; results hold whatever has been run.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    split: str = argument("0", "Name or number of the split.")
    feature_extractor: dict = argument({}, "Arguments of ReliantFeatureExtractor.")
    teachers: dict = argument({}, "For each teacher: variant, config, loop.")
    students: dict = argument({}, "For each student: variant, fairness_weight, config, loop; `changes` by dataset.")
    plan: list = argument(
        [], "Which runs: datasets, teachers, students, seeds; fairness weights, if not 0 (plain) and the student's."
    )
    results_dir: str = argument("docs/results", "Folder of the results.")


@dataclass(frozen=True)
class Run:
    """One run: of a teacher, or of a student if there is one."""

    dataset: str
    teacher: str
    seed: int
    student: str | None = None
    fairness_weight: float | None = None

    def find_folder(self, output_dir: str) -> Path:
        parts = [self.teacher, self.student, None if self.student is None else f"weight{self.fairness_weight:g}"]
        name = "-".join([*(part for part in parts if part), f"seed{self.seed}"]).lower()
        return Path(output_dir) / Path(self.dataset).name / name


def describe_run(run: Run) -> dict:
    """What was run; a user's own folder by its name."""
    return {**dataclasses.asdict(run), "dataset": Path(run.dataset).name}


def list_runs(arguments: Arguments) -> list[Run]:
    """All runs of the plan for the chosen datasets, each teacher before its students, seed by seed."""
    runs: dict[Run, None] = {}
    for part in arguments.plan:
        for dataset in (name for name in part["datasets"] if name in arguments.datasets):
            for seed in part["seeds"]:
                for teacher in part["teachers"]:
                    runs[Run(dataset, teacher, seed)] = None
                    for student in part.get("students", []):
                        weights = part.get("fairness_weights", [PLAIN, get_weight(arguments, dataset, student)])
                        runs |= {Run(dataset, teacher, seed, student, float(weight)): None for weight in weights}
    return list(runs)


def get_weight(arguments: Arguments, dataset: str, student: str) -> float:
    """The weight that stands for RELIANT."""
    settings = arguments.students[student]
    return settings.get("changes", {}).get(dataset, {}).get("fairness_weight", settings["fairness_weight"])


def merge_settings(run: Run, arguments: Arguments) -> tuple[str, dict, dict]:
    """Variant, fields of the configuration and arguments of the loop."""
    settings = arguments.teachers[run.teacher] if run.student is None else arguments.students[run.student]
    changes = settings.get("changes", {}).get(run.dataset, {})
    fields, loop = ({**settings.get(part, {}), **changes.get(part, {})} for part in ("config", "loop"))
    if run.student is not None:
        fields |= PLAIN_FIELDS if run.fairness_weight == PLAIN else {"fairness_weight": run.fairness_weight}
    return settings["variant"], fields, loop


def train_once(run: Run, row: dict, arguments: Arguments) -> dict:
    """Scores of one run."""
    folder = run.find_folder(arguments.output_dir)
    variant, fields, loop = merge_settings(run, arguments)
    run_arguments = dataclasses.replace(arguments, seed=run.seed, output_dir=str(folder), **loop)
    set_seed(run.seed)
    inputs = build_inputs(row, arguments.split, arguments.feature_extractor)[1]
    knowledge = None
    if run.student is not None:
        teacher_folder = dataclasses.replace(run, student=None, fairness_weight=None).find_folder(arguments.output_dir)
        knowledge = TeacherKnowledge.from_file(teacher_folder / "knowledge.safetensors")
    label_names = [f"class {index}" for index in range(int(inputs["labels"].max()) + 1)]
    model = build_model(variant, fields, inputs, label_names)
    updates, companions, batch = build_updates_of(run_arguments, model, inputs, knowledge)
    masks = {"validation": inputs["validation_mask"], "test": inputs["test_mask"]}

    def evaluate(model):
        return join_scores(evaluate_parts(model, inputs, masks, TASK, with_loss=True))

    result = train(
        model, updates, [batch], run_arguments, collate_fn=lambda rows: rows[0], companions=companions,
        evaluate=evaluate,
    )  # fmt: skip
    outcome = {
        **describe_run(run),
        "figures": result.metrics,
        "checkpoint": f"best {run_arguments.metric_for_best_model}".replace("_", " "),
        "steps": result.step,
        "minutes": result.minutes,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    shutil.rmtree(folder)  # checkpoints of many runs
    folder.mkdir()
    if run.student is None:
        knowledge = TeacherKnowledge.from_model(result.model, inputs["node_features"], inputs["edge_index"])
        knowledge.save(folder / "knowledge.safetensors")
    return outcome


def measure_majority(dataset: str, row: dict, arguments: Arguments) -> None:
    """Scores of a classifier that gives every node the most frequent class of the validation nodes."""
    inputs = build_inputs(row, arguments.split, {})[1]
    majority = inputs["labels"][inputs["validation_mask"]].mode().values
    constant = functional.one_hot(majority, int(inputs["labels"].max()) + 1).float().expand(len(inputs["labels"]), -1)
    scores = {}
    for part in ("validation", "test"):
        columns = get_task(TASK).gather(constant, inputs, inputs[f"{part}_mask"])
        result = load_metric("group_fairness").compute(**columns)
        scores |= {f"{part}_{name}": value for name, value in result.items() if isinstance(value, float)}
    outcome = {**describe_run(Run(dataset, MAJORITY, seed=0)), "figures": scores, "checkpoint": "none"}
    facts = {"steps": 0, "minutes": 0.0, "num_parameters": 0}
    write_json(Path(arguments.output_dir) / Path(dataset).name / "majority" / "run.json", {**outcome, **facts})


def main():
    arguments = load_recipe(Arguments)
    rows = {}
    for run in list_runs(arguments):
        if run.dataset not in rows:
            rows[run.dataset] = load_dataset(run.dataset, arguments.data_dir, family="node-classification")["graph"][0]
            measure_majority(run.dataset, rows[run.dataset], arguments)
        folder = run.find_folder(arguments.output_dir)
        scores = run_once(folder, partial(train_once, run, rows[run.dataset], arguments))["figures"]
        shown = {name: round(value, 4) for name, value in scores.items() if "_group_" not in name}
        print(run.find_folder(""), shown, flush=True)
    chosen = {
        (Path(dataset).name, student): get_weight(arguments, dataset, student)
        for part in arguments.plan
        for dataset in part["datasets"]
        for student in part.get("students", [])
    }
    write_results(Path(arguments.output_dir), Path(arguments.results_dir), chosen)


if __name__ == "__main__":
    main()
