"""Weights to fine-tune: those of a model folder or Hub repository, with a new head where the classes differ."""

import logging
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from decahub.tasks.loading import check_finite


logger = logging.getLogger(__name__)
SHOWN_NAMES = 3


def check_source(name: str, source: str) -> None:
    """Refuses a path, absolute or beginning with a dot, where there is no folder: it is no Hub id.

    Raises:
        ValueError: If `source` is empty.
        FileNotFoundError: If the folder does not exist.
    """
    if not source:
        raise ValueError(f"`{name}` must be a model folder or a Hub id; got ''.")
    if source.startswith(("/", "./", "../", "~")) and not Path(source).exists():
        raise FileNotFoundError(f"`{name}` must be a model folder or a Hub id; the folder {source!r} does not exist.")
    if not Path(source).exists():
        logger.warning(f"`{name}`: no folder {source!r} in {Path.cwd()}; looking for it on the Hub.")


def load_pretrained(model_class: Any, source: str, **fields: Any) -> Any:
    """A pre-trained model with some fields of its configuration changed; what does not fit gets random weights.

    Raises:
        ValueError: If `source` is empty, or its weights are not finite.
        FileNotFoundError: If the folder does not exist.
    """
    check_source("pretrained", source)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its report takes a head that is replaced on purpose for a mismatch
    try:
        model, info = model_class.from_pretrained(
            source, ignore_mismatched_sizes=True, output_loading_info=True, **fields
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
    mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    if names := sorted({*info["missing_keys"], *mismatched}):
        shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
        logger.warning(f"Starting from {source}; {len(names)} tensors get new random weights: {shown}")
    check_finite(model, source)
    return model
