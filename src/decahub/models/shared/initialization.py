"""Initialization of new weights by `_init_weights`."""

from torch import nn


class ParentInitialization:
    """For the base class of a room, before `PreTrainedModel`, where a module initializes the layers inside it.

    Outside of transformers, modules without parameters of their own are not given to `_init_weights`, lest code that
    writes in place overwrites what was loaded. Functions of `transformers.initialization` leave loaded weights alone.
    """

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        super()._initialize_weights(module, is_custom_code=False)


__all__ = ["ParentInitialization"]
