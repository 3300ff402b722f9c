"""The one training loop of decahub, its recipes, schedules and checkpoints.

A script of a method says what to learn from; the loop does the rest (processes, precision, accumulation, clipping,
average of the weights, checkpoints, logs, resuming):

    @dataclass
    class Arguments(LoopArguments):
        dataset: str = argument("cifar10", "Name of the dataset.")

    arguments = load_recipe(Arguments)  # train.py recipe.yaml --learning_rate 1e-3
    set_seed(arguments.seed)
    model = EmoForImageClassification(EmoConfig.from_variant("1m", num_labels=10))
    groups = build_parameter_groups(model, arguments.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate)

    update = Update(optimizer, scheduler=arguments.build_scheduler)
    result = train(model, update, dataset, arguments, collate_fn=collate, evaluate=evaluate)
    if result.is_main_process:
        result.model.save_pretrained(arguments.output_dir)
"""

from decahub.environment import describe_command, describe_hardware, describe_versions
from decahub.options import argument
from decahub.seeding import derive_seed, seed_everything

from .arguments import LoopArguments
from .checkpoint import CheckpointError
from .denormals import flushed_denormals
from .fingerprint import fingerprint_data, fingerprint_recipe
from .loop import TrainingResult, train
from .recipe import RecipeError, find_method, load_recipe, recipe_to_yaml
from .schedules import SCHEDULES, build_scheduler
from .update_runner import DivergenceError
from .updates import Update


__all__ = [
    "SCHEDULES",
    "CheckpointError",
    "DivergenceError",
    "LoopArguments",
    "RecipeError",
    "TrainingResult",
    "Update",
    "argument",
    "build_scheduler",
    "derive_seed",
    "describe_command",
    "describe_hardware",
    "describe_versions",
    "find_method",
    "flushed_denormals",
    "fingerprint_data",
    "fingerprint_recipe",
    "load_recipe",
    "recipe_to_yaml",
    "seed_everything",
    "train",
]
