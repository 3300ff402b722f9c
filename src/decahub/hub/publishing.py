"""Publishing: a model folder plus the code of its room becomes one commit of a Hub repository.

The folder itself stays as it is. What goes up is a staged copy that also loads where decahub is not installed: it has
the files that the model's classes need (see `flattening.py`), and an `auto_map` that names the class for each Auto
class.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import safe_open

from decahub.environment import mask_secrets
from decahub.registry import ModelEntry, find_modules

from .card_facts import find_method
from .files import CHECKSUMS, CONFIG, EVALUATION, RECIPE, list_files, read_json, read_text, write_json
from .flattening import flatten_modules, get_class_reference
from .model_folder import ModelFolder
from .saving import clean_configuration


# Anything else, above all pickles (.bin, .pt, .pkl, .npy) and compiled Python, has no place in a repository of ours.
PUBLISHED_SUFFIXES = (".jinja", ".json", ".jsonl", ".md", ".png", ".py", ".safetensors", ".yaml")
KEPT_ON_THE_HUB = (".gitattributes",)
# The files that may hold what a person or a program wrote by mistake.
TEXT_SUFFIXES = (".jinja", ".json", ".jsonl", ".md", ".py", ".yaml")
MAX_VOCABULARY_BYTES = 100_000_000


def publish(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
) -> CommitInfo:
    """Uploads a model folder with the code of its room, in one commit.

    The repository and the branch are made if they do not exist. Files of an earlier version that this one lacks are
    removed in the same commit. Everything is checked before the first request, so a broken folder changes nothing.

    Args:
        folder (`str` or `os.PathLike`): a folder of [`save_model_folder`].
        repo_id (`str`): `"<owner>/<name>"`.
        private (`bool`, defaults to `False`): whether a repository that is made now is private; one that exists and
            is public is refused.
        token (`str`, *optional*): access token; by default the one of `hf auth login`.
        commit_message (`str`, *optional*): title of the commit.
        revision (`str`, *optional*): branch to commit to; by default the main one.

    Returns:
        `huggingface_hub.CommitInfo`: the commit, with its address.

    Raises:
        ValueError: If the files do not agree with the checksums, if one must not be published, if the weights are
            not whole and finite, if the processor cannot be loaded, if they give no valid card, or if `private` is
            set for a repository that is public.
    """
    with tempfile.TemporaryDirectory(prefix="decahub-publish-") as temporary:
        staging = Path(temporary)
        stage_repository(folder, repo_id, staging)
        names = [*list_files(staging), CHECKSUMS]
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=staging / name) for name in names]
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise ValueError(
                f"`private` must come with a new or a private repository; {repo_id} exists and is public. Make it "
                "private on the Hub, or choose another name."
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        outdated = set(api.list_repo_files(repo_id, revision=revision)).difference(names, KEPT_ON_THE_HUB)
        deletions = [CommitOperationDelete(path_in_repo=name) for name in sorted(outdated)]
        # Not `upload_folder`: with hf_xet installed it may split a folder into several commits.
        return api.create_commit(
            repo_id,
            operations=[*additions, *deletions],
            commit_message=commit_message or f"Upload {repo_id.split('/')[-1]} with decahub",
            revision=revision,
        )


def check_repo_id(repo_id: str) -> None:
    """Refuses what the Hub does not take as the name of a repository, and a name without its owner."""
    if "/" not in repo_id:
        raise ValueError(f"`repo_id` must be '<owner>/<name>'; got {repo_id!r}. Put the owner in front.")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"`repo_id` must be '<owner>/<name>' of letters, digits, '-', '_' and '.', at most 96 characters; got "
            f"{repo_id!r}. Choose another name."
        ) from error


def stage_repository(folder: str | os.PathLike, repo_id: str, staging: Path) -> None:
    """Fills the empty folder `staging` with what a repository will hold, and checks it.

    Raises:
        ValueError: If `repo_id` has no owner, a text of the card is missing, or the folder must not be published as
            it is.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    _refuse_unfit_files(folder)
    original = ModelFolder(folder)
    if problems := original.find_problems():
        raise ValueError(
            f"The files in {str(folder)!r} must agree with {CHECKSUMS}; {'; '.join(problems)}. "
            "Restore the files, or run `decahub card` if the change is meant."
        )
    if missing := original.facts.card.missing_texts:
        raise ValueError(
            f"A published card needs its texts; {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
            f"Write them into {folder / RECIPE} and run `decahub card`."
        )
    original.check_weights(needs_base=False)
    original.check_processor()
    for name in original.files:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, staging / name)
    _add_code(staging)
    staged = ModelFolder(staging)
    staged.set_recipe_value("card_repo_id", repo_id)
    staged.write_card()
    _refuse_unfit_files(staging)
    _refuse_secrets(staging)
    staged.write_checksums()


def _refuse_secrets(folder: Path) -> None:
    for name in list_files(folder):
        path = folder / name
        if name.endswith(TEXT_SUFFIXES):
            text = read_text(path, MAX_VOCABULARY_BYTES)
        elif name.endswith(".safetensors"):
            with safe_open(path, "numpy") as tensors:
                text = json.dumps(tensors.metadata())
        else:
            continue
        if mask_secrets(text) != text:
            raise ValueError(
                f"A published folder must hold no secrets; {name} holds what looks like an access token or "
                "password. Remove it and run `decahub card`."
            )
    model = ModelFolder(folder)
    for name, content in ((CONFIG, model.config), (RECIPE, model.recipe), (EVALUATION, model.evaluation)):
        clean = clean_configuration(content)
        for key, value in clean.items():
            if json.dumps(value, default=str) != json.dumps(content[key], default=str):
                raise ValueError(
                    f"A published folder must hold no paths of a machine and no secrets; `{key}` in {name} holds one. "
                    "Remove it and run `decahub card`."
                )


def _refuse_unfit_files(folder: Path) -> None:
    unfit = [name for name in list_files(folder) if not name.endswith(PUBLISHED_SUFFIXES)]
    if unfit:
        allowed = ", ".join(PUBLISHED_SUFFIXES)
        raise ValueError(f"A published folder must hold only {allowed} files; got {', '.join(unfit)}. Remove it.")


def _add_code(staging: Path) -> None:
    """Copies the modules that the model's classes need into `staging` and names the classes in the configurations."""
    config = read_json(staging / CONFIG)
    method, entry = find_method(config)
    for name, content in flatten_modules(find_modules(method, entry).values()).items():
        (staging / name).write_bytes(content)
    write_json(staging / CONFIG, {**config, "auto_map": build_auto_map(entry)})
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = staging / name
        if path.exists():
            write_json(path, add_processor_auto_map(read_json(path), entry))


def build_auto_map(entry: ModelEntry) -> dict[str, str]:
    """`auto_map` of a `config.json`: Auto class -> `<module>.<class>`, for the configuration and all models."""
    classes = {"AutoConfig": entry.config, **entry.auto_classes}
    return {auto_class: get_class_reference(name) for auto_class, name in classes.items()}


def add_processor_auto_map(content: dict[str, Any], entry: ModelEntry) -> dict[str, Any]:
    """A processor's configuration with the `auto_map` of its kind, and of its parts where it has some."""
    if "processor_class" in content and entry.processor is not None:
        parts = {
            name: add_processor_auto_map(part, entry) if isinstance(part, dict) else part
            for name, part in content.items()
        }
        return {**parts, "auto_map": {"AutoProcessor": get_class_reference(entry.processor)}}
    if "feature_extractor_type" in content and entry.feature_extractor is not None:
        return {**content, "auto_map": {"AutoFeatureExtractor": get_class_reference(entry.feature_extractor)}}
    if "image_processor_type" in content and entry.image_processors:
        # The order that transformers reads a list in: PIL, then torchvision. A class alone serves either backend.
        names = [entry.image_processors[name] for name in ("pil", "torchvision") if name in entry.image_processors]
        references = [get_class_reference(name) for name in names]
        return {**content, "auto_map": {"AutoImageProcessor": references if len(references) > 1 else references[0]}}
    return content
