"""Publishing: a model folder plus the code of its room becomes one commit of a Hub repository.

The folder itself stays as it is. What goes up is a staged copy that also loads where decahub is not installed: it has
the files that the model's classes need (see `flattening.py`), and an `auto_map` that names the class for each Auto
class.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import validate_repo_id

from decahub.registry import ModelEntry, find_modules

from .card_facts import find_method
from .flattening import flatten_modules, get_class_reference
from .folder import (
    CARD,
    CHECKSUMS,
    CONFIG,
    find_checksum_problems,
    list_files,
    read_json,
    set_recipe_value,
    write_checksums,
    write_json,
)
from .model_card import check_card, write_model_card


# Anything else, above all pickles (.bin, .pt, .pkl, .npy) and compiled Python, has no place in a repository of ours.
PUBLISHED_SUFFIXES = (".jinja", ".json", ".jsonl", ".md", ".png", ".py", ".safetensors", ".yaml")
KEPT_ON_THE_HUB = (".gitattributes",)


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
        private (`bool`, defaults to `False`): whether a repository that is made now is private.
        token (`str`, *optional*): access token; by default the one of `hf auth login`.
        commit_message (`str`, *optional*): title of the commit.
        revision (`str`, *optional*): branch to commit to; by default the main one.

    Returns:
        `huggingface_hub.CommitInfo`: the commit, with its address.

    Raises:
        ValueError: If the files do not agree with the checksums, if one must not be published, or if they give no
            valid card.
    """
    with tempfile.TemporaryDirectory(prefix="decahub-publish-") as temporary:
        staging = Path(temporary)
        stage_repository(folder, repo_id, staging)
        names = [*list_files(staging), CHECKSUMS]
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=staging / name) for name in names]
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
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


def stage_repository(folder: str | os.PathLike, repo_id: str, staging: Path) -> None:
    """Fills the empty folder `staging` with what a repository will hold, and checks it.

    Raises:
        ValueError: If `repo_id` has no owner or the folder must not be published as it is.
    """
    folder = Path(folder)
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"`repo_id` must be '<owner>/<name>'; got {repo_id!r}. Put the owner in front.")
    _refuse_unfit_files(folder)
    if problems := find_checksum_problems(folder):
        raise ValueError(
            f"The files in {str(folder)!r} must agree with {CHECKSUMS}; {'; '.join(problems)}. "
            "Restore the files, or run `decahub card` if the change is meant."
        )
    for name in list_files(folder):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, staging / name)
    _add_code(staging)
    set_recipe_value(staging, "card_repo_id", repo_id)
    write_model_card(staging)
    check_card((staging / CARD).read_text(encoding="utf-8"))
    _refuse_unfit_files(staging)
    write_checksums(staging)


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
