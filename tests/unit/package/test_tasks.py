"""The table of tasks: every row is complete, and a new one needs nothing but its row and its module."""

import sys
from types import ModuleType

import pytest
import torch
import transformers

import decahub
from decahub.metrics import list_metrics
from decahub.registry import METHODS, TASKS, TaskEntry
from decahub.tasks import Task, find_task, get_task
from decahub.tasks.task import AUTO_PROCESSORS, move_to_model


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_complete(name):
    entry, task = TASKS[name], get_task(name)

    assert entry.name == name
    assert isinstance(task, Task)
    assert type(task).predict is not Task.predict
    assert type(task).answer is not Task.answer
    assert task.columns
    assert entry.metric in list_metrics()
    assert hasattr(decahub if entry.is_new else transformers, entry.auto_class)
    assert hasattr(transformers, AUTO_PROCESSORS[entry.processor])
    assert task.family.columns
    assert any(name in method.tasks for method in METHODS.values())
    assert entry.hub_tag or entry.tags
    if entry.pipeline is not None:
        assert issubclass(getattr(decahub, entry.pipeline), transformers.Pipeline)


def test_every_ready_method_has_tasks_that_its_models_answer():
    for method in METHODS.values():
        auto_classes = {auto for entry in method.models for auto in entry.auto_classes}
        for name in method.tasks if method.is_ready else ():
            assert TASKS[name].auto_class in auto_classes


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("EmoForSemanticSegmentation", "semantic-segmentation"),
        ("TinyMimModel", "image-feature-extraction"),
        ("RawGnnForNodeClassification", "node-classification"),
        ("ReliantForNodeClassification", "fair-node-classification"),
        ("DrumLmForCausalLM", "drum-generation"),
        ("CmtForObjectDetection3D", "object-detection-3d"),
        ("PmtIqaForImageQualityAssessment", "image-quality-assessment"),
        ("RefTForFewShotInstanceSegmentation", "few-shot-instance-segmentation"),
        ("MpdSubtypingModel", "patient-subtyping"),
    ],
)
def test_a_class_has_the_main_task_of_its_method(architecture, name):
    assert find_task(architecture).name == name


@pytest.mark.parametrize("architecture", ["RawGnnModel", "BertModel"])
def test_refuses_a_class_without_a_task(architecture):
    with pytest.raises(ValueError, match=f"{architecture} is not"):
        find_task(architecture)


def test_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="must be one of .*; got 'drum-generaton'. Did you mean 'drum-generation'?"):
        get_task("drum-generaton")


def test_a_new_task_is_a_row_and_a_module(monkeypatch):
    module = ModuleType("decahub.tasks.toy_sorting")
    module.ToySorting = type("ToySorting", (Task,), {"columns": ("value",)})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = TaskEntry("toy-sorting", "image-classification", "mean_iou", "AutoModel", "processor", "toy_sorting")
    monkeypatch.setitem(TASKS, entry.name, entry)

    assert type(get_task("toy-sorting")) is module.ToySorting


def test_tasks_import_no_torch(run_python):
    """Cards and help texts are made from them."""
    script = (
        "import sys; from decahub.registry import TASKS; from decahub.tasks import get_task; "
        "[get_task(name) for name in TASKS]; print('torch' in sys.modules or 'datasets' in sys.modules)"
    )

    assert run_python(script).strip() == "False"


def test_inputs_are_moved_in_the_precision_of_the_model_unless_they_are_exact():
    model = torch.nn.Linear(1, 1).to(torch.bfloat16)
    model.device, model.dtype = torch.device("cpu"), torch.bfloat16
    double = torch.ones(2, dtype=torch.float64)
    batch = {"matrix": double, "matrices": [double], "values": double, "ids": torch.ones(2).long(), "names": ["a"]}

    moved = move_to_model(batch, model, exact_inputs=("matrix", "matrices"))

    assert moved["matrix"].dtype == moved["matrices"][0].dtype == torch.float64
    assert moved["values"].dtype == torch.bfloat16
    assert moved["ids"].dtype == torch.int64
    assert moved["names"] == ["a"]
