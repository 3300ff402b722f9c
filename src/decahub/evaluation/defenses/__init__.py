"""Defenses against backdoors: of a classifier, of its inputs, and of the images that it was trained on."""

from collections.abc import Callable

from .dataset_level import activation_clustering, scan, spectral_signatures, spectre
from .input_level import autoencoder, quantization, strip
from .model_level import artificial_brain_stimulation, neural_cleanse
from .repair import fine_pruning, fine_tuning, neural_attention_distillation
from .subject import DefenseResult, Subject


DEFENSES: dict[str, Callable[..., DefenseResult]] = {
    "neural_cleanse": neural_cleanse,
    "abs": artificial_brain_stimulation,
    "strip": strip,
    "autoencoder": autoencoder,
    "spectral_signatures": spectral_signatures,
    "spectre": spectre,
    "scan": scan,
    "activation_clustering": activation_clustering,
    "nad": neural_attention_distillation,
    "fine_tuning": fine_tuning,
    "fine_pruning": fine_pruning,
    "quantization": quantization,
}
"""Name to function `(subject) -> DefenseResult`, in the order of reports."""

__all__ = ["DEFENSES", "DefenseResult", "Subject"]
