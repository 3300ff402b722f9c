"""Loading models for use: whole, finite, and without running code of the folder."""

import json
import os
from pathlib import Path
from typing import Any


PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
AGAIN = "Download or save the folder again."
LOADING_PROBLEMS = ("missing_keys", "unexpected_keys")


def load_model(source: str | os.PathLike, auto_class: str, *, unused: str | None = None, **kwargs: Any) -> Any:
    """A model of a folder or Hub repository, in evaluation mode.

    Args:
        source (`str` or path): Folder or Hub id.
        auto_class (`str`): Name of an Auto class of transformers or decahub, or of a model class of decahub.
        unused (`str`, *optional*): Prefix of tensors that are not used afterwards and may be missing.
        kwargs: Passed to `from_pretrained`.

    Raises:
        ValueError: If a tensor is missing, unknown, of another shape, or not finite: transformers would fill in random
            values and go on. Or if the model has code of its own.
    """
    import transformers

    import decahub.auto  # sets the Auto classes of new tasks on transformers

    loader: Any = getattr(transformers, auto_class, None) or getattr(decahub, auto_class)
    kwargs |= {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
    try:
        model, info = loader.from_pretrained(source, **kwargs)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{str(source)!r} must be a model that transformers or decahub knows; it has code of its own, which is "
            "not run."
        ) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        # transformers logs the wrong tensors, which may be silenced; this way it returns them.
        model, info = loader.from_pretrained(source, ignore_mismatched_sizes=True, **kwargs)
        if not info["mismatched_keys"]:
            raise
    if auto_class == "AutoModel":
        info = {**info, "unexpected_keys": []}  # a bare model leaves the head of the file aside
    if unused is not None:
        info = {**info, "missing_keys": [name for name in info["missing_keys"] if not name.startswith(unused)]}
    check_weights(model, info, str(source))
    return model.eval()


def check_weights(model: Any, info: dict[str, Any], source: str) -> None:
    """Refuses weights that are incomplete or not finite."""
    for name, in_file, in_model in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"The weights in {source!r} must have the shapes of {type(model).__name__}; `{name}` has "
            f"{tuple(in_file)} in the file, {tuple(in_model)} in the model. Does `config.json` belong to them?"
        )
    for kind in LOADING_PROBLEMS:
        if info[kind]:
            names = sorted(map(str, info[kind]))
            raise ValueError(
                f"The weights in {source!r} must be those of {type(model).__name__}; {len(names)} "
                f"{kind.removesuffix('_keys')} tensors, the first is {names[0]}. Download or save the folder again."
            )
    check_finite(model, source)


def check_finite(model: Any, source: str) -> None:
    """Refuses weights with NaN or infinity."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"The weights in {source!r} must be finite; `{name}` holds NaN or infinity.")


def load_processor(source: str | os.PathLike, auto_class: str) -> Any:
    """The processor of a folder or Hub repository, by the name of its Auto class.

    Raises:
        OSError: If a file of it is missing.
        ValueError: If its configuration cannot be used.
    """
    import transformers

    for name in PROCESSOR_FILES:
        check_processor_file(Path(source, name))
    try:
        return getattr(transformers, auto_class).from_pretrained(source, trust_remote_code=False)
    except ImportError:
        raise
    except OSError as error:
        if not Path(source).is_dir():
            raise
        # transformers takes the folder for a repository and goes on about the Hub.
        reason = str(error).partition(". ")[0].partition("\n")[0].rstrip(".")
        raise OSError(
            f"The processor in {str(source)!r} must be complete, with {' or '.join(PROCESSOR_FILES)} and what it "
            f"names; {reason}. {AGAIN}"
        ) from error
    except Exception as error:  # whatever transformers raises at odd JSON
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
        raise ValueError(
            f"The configuration of the processor in {str(source)!r} cannot be used; {reason}. {AGAIN}"
        ) from error


def check_processor_file(path: Path) -> None:
    """Refuses a configuration that is no JSON object with entries: transformers would fill in defaults, or fail."""
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`{path.name}` in {str(path.parent)!r} must be JSON; {error}. {AGAIN}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"`{path.name}` in {str(path.parent)!r} must hold a JSON object with the processor's settings; got "
            f"{json.dumps(content):.60}. {AGAIN}"
        )
