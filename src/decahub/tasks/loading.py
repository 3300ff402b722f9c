"""Loading models for use: whole, finite, and without running code of the folder."""

import os
from typing import Any


LOADING_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def load_model(source: str | os.PathLike, auto_class: str, **kwargs: Any) -> Any:
    """A model of a folder or Hub repository, in evaluation mode.

    Args:
        source (`str` or path): Folder or Hub id.
        auto_class (`str`): Name of an Auto class of transformers or decahub.
        kwargs: Passed to `from_pretrained`.

    Raises:
        ValueError: If a tensor is missing, unknown, of another shape, or not finite. transformers would fill in random
            values and go on.
    """
    import transformers

    import decahub.auto  # noqa: F401  (sets the Auto classes of new tasks on transformers)

    loader = getattr(transformers, auto_class)
    model, info = loader.from_pretrained(
        source, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **kwargs
    )
    if auto_class == "AutoModel":
        info = {**info, "unexpected_keys": []}  # a bare model leaves the head of the file aside
    check_weights(model, info, str(source))
    return model.eval()


def check_weights(model: Any, info: dict[str, Any], source: str) -> None:
    """Refuses weights that are incomplete or not finite."""
    for kind in LOADING_PROBLEMS:
        if info[kind]:
            names = sorted(map(str, info[kind]))
            raise ValueError(
                f"The weights in {source!r} must be those of {type(model).__name__}; {len(names)} "
                f"{kind.removesuffix('_keys')} tensors, the first is {names[0]}. Download or save the folder again."
            )
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"The weights in {source!r} must be finite; `{name}` holds NaN or infinity.")


def load_processor(source: str | os.PathLike, auto_class: str) -> Any:
    """The processor of a folder or Hub repository, by the name of its Auto class."""
    import transformers

    return getattr(transformers, auto_class).from_pretrained(source, trust_remote_code=False)
