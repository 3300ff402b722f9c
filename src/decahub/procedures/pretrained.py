"""Weights to fine-tune: those of a model folder or Hub repository, with a new head where the classes differ."""

import logging
from typing import Any

from transformers.utils import logging as transformers_logging


logger = logging.getLogger(__name__)
SHOWN_NAMES = 3


def load_pretrained(model_class: Any, source: str, **fields: Any) -> Any:
    """A pre-trained model with some fields of its configuration changed; what does not fit gets random weights."""
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
    return model
