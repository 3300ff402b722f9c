"""Turns a language model or an adapter of peft into a Drum LM folder, and a Drum LM folder into those again.

    python conversion/convert_drum_lm.py --checkpoint SmolLM2-135M-Instruct.Q4_1.gguf --output_dir drum-base/
    python conversion/convert_drum_lm.py --checkpoint some-causal-lm/ --output_dir drum-base/
    python conversion/convert_drum_lm.py --checkpoint peft-adapter/ --base_model some-causal-lm/ --output_dir adapter/
    python conversion/convert_drum_lm.py --checkpoint drum-base/ --output_dir some-causal-lm/
    python conversion/convert_drum_lm.py --checkpoint adapter/ --merge --output_dir drum-whole/

What the folder or file holds decides the way; with `--merge`, an adapter of peft or of ours becomes a complete model.
The method's authors published no weights: they fine-tuned GPT-3 behind a service. A GGUF file is dequantized to
float32 by transformers; that cannot be undone, so the way back leads to a folder of transformers. Only safetensors and
GGUF files are read.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from decahub.models.drum_lm.adapter import ADAPTER_NAME, is_adapter_name
from decahub.models.drum_lm.backbone import GGUF_SUFFIX, load_backbone, split_gguf_path


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    PARITY_REPORT,
    ConversionError,
    rename,
    run_converter,
    sha256_of,
    write_json,
    write_model_folder,
    write_parity_report,
)


WEIGHTS = "model.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "backbone."
PEFT_PREFIX = "base_model.model."
# Settings of an adapter that change what it computes; the rest of its file is about how it was trained or loaded.
LORA_SETTINGS = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "modules_to_save", "use_rslora",
    "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern",
)  # fmt: skip
# What changes the base itself, is kept elsewhere than in the adapters, or turns them off for some tokens.
UNKNOWN_SETTINGS = (
    "lora_bias", "trainable_token_indices", "layer_replication", "megatron_config", "alora_invocation_tokens"
)  # fmt: skip
BASE_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Tensors of an adapter that are no weights of a layer, whose names in peft's files end without `weight`.
BARE_TENSORS = {"lora_magnitude_vector": ".weight", "lora_embedding_A": "", "lora_embedding_B": ""}


def convert_state_dict(official: Mapping[str, torch.Tensor], config: DrumLmConfig) -> dict[str, torch.Tensor]:
    """Tensors of a causal language model of transformers, or of an adapter of peft, under our names.

    Args:
        official (`Mapping[str, torch.Tensor]`): `model.layers.0...`, or `base_model.model.model.layers.0...` of peft.
        config ([`DrumLmConfig`]): Tells with `adapter` which of both.

    Raises:
        ConversionError: If a name is of the other kind, or of the base of an adapter.
    """
    if config.adapter is None:
        return {PREFIX + name: tensor for name, tensor in official.items()}
    strange = [name for name in official if not name.startswith(PEFT_PREFIX)]
    if strange:
        raise ConversionError(f"Names of an adapter must begin with {PEFT_PREFIX!r}; {strange[0]} does not.")
    of_base = [name for name in official if ".base_layer." in name]
    if of_base:
        raise ConversionError(
            f"An adapter must not hold {of_base[0]}, a weight of its base. Save it again with "
            "`save_embedding_layers=False`."
        )
    return rename(official, _from_peft)


def revert_state_dict(ours: Mapping[str, torch.Tensor], config: DrumLmConfig) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`].

    Args:
        ours (`Mapping[str, torch.Tensor]`): State dict of [`DrumLmForCausalLM`], or its adapters.
        config ([`DrumLmConfig`]): Its configuration.

    Raises:
        ConversionError: If a name is not one of ours, or the model has velocities and timing.
    """
    if config.expression is not None:
        raise ConversionError(
            "`checkpoint` must be a Drum LM without `expression`, which a language model of transformers has no place "
            "for. Use it as it is."
        )
    strange = [name for name in ours if not name.startswith(PREFIX)]
    if strange:
        raise ConversionError(f"Names of a Drum LM must begin with {PREFIX!r}; {strange[0]} does not.")
    if config.adapter is None:
        return rename(ours, lambda name: name.removeprefix(PREFIX))
    return rename(ours, _to_peft)


def _from_peft(name: str) -> str:
    """The files of peft lack the name of the adapter: `lora_A.weight` is `lora_A.default.weight`."""
    stem, _, leaf = name.removeprefix(PEFT_PREFIX).rpartition(".")
    if leaf in BARE_TENSORS:
        return f"{PREFIX}{stem}.{leaf}.{ADAPTER_NAME}{BARE_TENSORS[leaf]}"
    if not is_adapter_name(name):
        stem += ".modules_to_save"  # a module that was trained whole
    return f"{PREFIX}{stem}.{ADAPTER_NAME}.{leaf}"


def _to_peft(name: str) -> str:
    for leaf, ending in BARE_TENSORS.items():
        name = name.replace(f".{leaf}.{ADAPTER_NAME}{ending}", f".{leaf}")
    return PEFT_PREFIX + name.removeprefix(PREFIX).replace(".modules_to_save", "").replace(f".{ADAPTER_NAME}.", ".")


def convert_checkpoint(
    checkpoint: Path,
    output_dir: Path,
    base_model: str | None = None,
    repo_id: str | None = None,
    merge: bool = False,
) -> dict[str, Any]:
    """Convert what `checkpoint` holds, in the direction that it asks for.

    Args:
        checkpoint (`Path`): A GGUF file, a folder of a causal language model, of peft, or of a Drum LM.
        output_dir (`Path`): A new folder.
        base_model (`str`, *optional*): For an adapter: its base, a folder, Hub id or GGUF file; by default what its
            configuration names. Ours needs it only to be merged.
        repo_id (`str`, *optional*): Name of the base that the configuration of an adapter is to hold.
        merge (`bool`, defaults to `False`): Make a complete Drum LM of an adapter and its base.

    Returns:
        `dict`: Report, also written to `parity_report.json` on the way to us.

    Raises:
        ConversionError: If the folder is none of these, or holds no adapter to be merged.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"`checkpoint` must exist; there is no {checkpoint}.")
    if merge:
        return _merge_adapter(checkpoint, output_dir, base_model, repo_id)
    if checkpoint.suffix == GGUF_SUFFIX:
        return _convert_language_model(checkpoint, output_dir)
    if (checkpoint / ADAPTER_CONFIG).is_file():
        return _convert_peft(checkpoint, output_dir, base_model, repo_id)
    if not (checkpoint / "config.json").is_file():
        raise ConversionError(
            f"`checkpoint` must be a {GGUF_SUFFIX} file, or a folder with config.json or {ADAPTER_CONFIG}; "
            f"{checkpoint} is not."
        )
    if _read_config(checkpoint).get("model_type") == "drum_lm":
        return _revert_folder(checkpoint, output_dir)
    return _convert_language_model(checkpoint, output_dir)


def _read_config(folder: Path) -> dict[str, Any]:
    return read_json_object(folder / "config.json")


def read_json_object(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ConversionError: If it holds anything else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{file} must hold a JSON object; it cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise ConversionError(f"{file} must hold a JSON object; got {type(value).__name__}.")
    return value


def _load_tokenizer(source: str | Path) -> Any:
    folder, gguf_file = split_gguf_path(source)
    try:
        return AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
    except ValueError as error:
        raise ConversionError(
            f"A language model must hold a tokenizer that transformers knows; {source} does not: {error}"
        ) from error


def _convert_language_model(checkpoint: Path, output_dir: Path) -> dict[str, Any]:
    processor = DrumLmProcessor(_load_tokenizer(checkpoint), tokenization="text")
    backbone = load_backbone(checkpoint, **({} if checkpoint.is_file() else {"dtype": "auto"}))
    model = DrumLmForCausalLM.from_backbone(backbone, processor, restrict_vocab=True)
    official = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    for tied in model.backbone.all_tied_weights_keys:
        official.pop(tied, None)
    report = {"kind": "language model", "source": {"name": checkpoint.name}, "round_trip": {}}
    if checkpoint.is_file():
        report["source"]["sha256"] = sha256_of(checkpoint)

    _write_folder(output_dir, model, processor, report, official)
    return report


def _write_folder(
    output_dir: Path,
    model: DrumLmForCausalLM,
    processor: DrumLmProcessor,
    report: dict[str, Any],
    official: dict[str, torch.Tensor] | None,
) -> None:
    """A model folder with its report, to which the way back is added where there are `official` tensors to compare."""

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        if official is None:
            write_json(folder / PARITY_REPORT, report)
        else:
            write_parity_report(folder, report, official, lambda ours: revert_state_dict(ours, model.config))

    write_model_folder(output_dir, write)


def _convert_peft(
    checkpoint: Path, output_dir: Path, base_model: str | None = None, repo_id: str | None = None
) -> dict[str, Any]:
    model, processor, official = _load_peft(checkpoint, base_model, repo_id)
    report = {"kind": "adapter", "source": _describe_weights(checkpoint / ADAPTER_WEIGHTS), "round_trip": {}}
    _write_folder(output_dir, model, processor, report, official)
    return report


def _load_peft(
    checkpoint: Path, base_model: str | None, repo_id: str | None
) -> tuple[DrumLmForCausalLM, DrumLmProcessor, dict[str, torch.Tensor]]:
    """An adapter of peft on its base, its processor, and its tensors as they are in the file."""
    settings = read_json_object(checkpoint / ADAPTER_CONFIG)
    _check_peft(checkpoint, settings)
    source = base_model or settings.get("base_model_name_or_path")
    if not isinstance(source, str) or not source:
        raise ConversionError(f"`base_model` must name the base of the adapter; {checkpoint} does not.")
    adapter = {name: settings[name] for name in LORA_SETTINGS if settings.get(name)}
    try:
        processor = DrumLmProcessor(_load_tokenizer(source), tokenization="text")
        fields = {"repo_id": repo_id, "restrict_vocab": True}
        model = DrumLmForCausalLM.from_backbone(source, processor, adapter=adapter, **fields)
    except OSError as error:
        raise ConversionError(
            f"`base_model` must be the base of the adapter; {str(source)!r} could not be loaded: {error}"
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConversionError(
            f"{checkpoint / ADAPTER_CONFIG} must hold settings that fit its base; peft refused them: {error}"
        ) from error
    _check_embeddings(checkpoint, model)
    official = load_file(checkpoint / ADAPTER_WEIGHTS)
    model.load_adapter_weights(convert_state_dict(official, model.config))
    return model, processor, official


def _describe_weights(file: Path) -> dict[str, str]:
    return {"name": file.parent.name, "sha256": sha256_of(file)}


def _merge_adapter(
    checkpoint: Path, output_dir: Path, base_model: str | None = None, repo_id: str | None = None
) -> dict[str, Any]:
    """A complete model, with a report that says of what; nothing can be taken back out of it."""
    if (checkpoint / ADAPTER_CONFIG).is_file():
        model, processor, _ = _load_peft(checkpoint, base_model, repo_id)
        source = _describe_weights(checkpoint / ADAPTER_WEIGHTS)
    elif (checkpoint / "config.json").is_file() and _read_config(checkpoint).get("adapter"):
        model = DrumLmForCausalLM.from_pretrained(checkpoint, base_model=base_model)
        processor = DrumLmProcessor.from_pretrained(checkpoint)
        source = _describe_weights(checkpoint / WEIGHTS)
    else:
        raise ConversionError(
            f"`merge` needs an adapter; {checkpoint} holds none. Give a folder of peft, or of a Drum LM whose "
            "`adapter` is set."
        )
    base = model.config.adapter_base
    report = {"kind": "merged language model", "source": source, "base": base and dict(base)}
    model.merge_adapter()
    report["tensors"] = len(model.state_dict().keys() - model.all_tied_weights_keys.keys())
    _write_folder(output_dir, model, processor, report, official=None)
    return report


def _check_peft(checkpoint: Path, settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be carried over to the same scores."""
    if settings.get("peft_type") != "LORA":
        raise ConversionError(f"`peft_type` must be LORA; {checkpoint} has {settings.get('peft_type')!r}.")
    if not (checkpoint / ADAPTER_WEIGHTS).is_file():
        raise ConversionError(
            f"`checkpoint` must hold {ADAPTER_WEIGHTS}; {checkpoint} does not. Save it again with "
            "`safe_serialization=True`."
        )
    strange = [name for name in UNKNOWN_SETTINGS if settings.get(name)]
    if settings.get("bias", "none") != "none":
        strange.append("bias")
    if str(settings.get("init_lora_weights")).lower().startswith(BASE_CHANGING_STARTS):
        strange.append("init_lora_weights")
    if strange:
        raise ConversionError(
            "The adapter must leave its base as it is, and be added to it for every token; "
            f"{checkpoint} has {strange[0]!r}: {settings[strange[0]]!r}. If peft can merge it into its base, "
            "convert the whole model that this makes."
        )


def _check_embeddings(checkpoint: Path, model: DrumLmForCausalLM) -> None:
    """Peft takes a trained embedding apart from a head that shares its weight; here both stay one."""
    from peft.utils import ModulesToSaveWrapper

    for name, module in model.backbone.named_modules():
        is_trained = isinstance(module, ModulesToSaveWrapper) and isinstance(
            module.original_module, torch.nn.Embedding
        )
        if is_trained and model.config.tie_word_embeddings:
            raise ConversionError(
                f"The adapter must not have trained {name!r} apart from the head of its base, which is the same "
                f"weight there; {checkpoint} has. Merge it into its base with peft, and convert the whole model."
            )


def _revert_folder(checkpoint: Path, output_dir: Path) -> dict[str, Any]:
    config = DrumLmConfig.from_pretrained(checkpoint)
    if config.adapter is not None and config.adapter_base is None:
        raise ConversionError(
            f"`checkpoint` must be an adapter with a named base or a complete model; {checkpoint} is an adapter in a "
            "model without a name. Merge it first with `--merge`."
        )
    official = revert_state_dict(load_file(checkpoint / WEIGHTS), config)

    def write(folder: Path) -> None:
        if config.adapter is None:
            config.backbone_config.save_pretrained(folder)
            save_file(official, folder / WEIGHTS, metadata={"format": "pt"})
        else:
            from peft import LoraConfig

            settings = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **config.adapter)
            settings.base_model_name_or_path = config.adapter_base["repo_id"]
            settings.save_pretrained(folder)
            save_file(official, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        DrumLmProcessor.from_pretrained(checkpoint).tokenizer.save_pretrained(folder)

    write_model_folder(output_dir, write)
    kind = "language model" if config.adapter is None else "adapter"
    return {"kind": f"{kind} of transformers", "source": {"name": checkpoint.name}, "tensors": len(official)}


def format_report(report: Mapping[str, Any]) -> str:
    count = report["round_trip"]["bit_equal"] if "round_trip" in report else report["tensors"]
    lines = [
        f"{'made':16}{report['kind']} from {report['source']['name']}",
        f"{'tensors':16}{count}" + (", bit-equal on the way back" if "round_trip" in report else ""),
    ]
    if "sha256" in report["source"]:
        lines.append(f"{'sha256':16}{report['source']['sha256']}")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a .gguf file, or a folder")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--base_model", help="base of an adapter")
    parser.add_argument("--repo_id", help="name of that base, for the configuration of the adapter")
    parser.add_argument("--merge", action="store_true", help="make a complete model of an adapter and its base")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["convert_checkpoint", "convert_state_dict", "revert_state_dict"]


if __name__ == "__main__":
    main()
