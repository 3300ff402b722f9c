"""What the networks of the distillers share: initialization, loss, outputs, and the layer that a trigger aims at.

Their weights have the authors' names, so official checkpoints differ in the file only.
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from ..shared.checks import can_look_at, refuse_unknown_inputs
from ..shared.losses import compute_classification_loss


PART_SIZE = 32  # images


class DistillNetwork(PreTrainedModel):
    """Base class of the classifiers. A network has `features`, `classifier` and [`compute_feature_maps`]."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    base_model_prefix = ""
    _no_split_modules = []
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if self.config.init == "xavier":  # as the authors' code for DD draws its networks
                init.xavier_normal_(module.weight)
            else:  # torch's own, as their code for DC does
                init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = 0.0 if self.config.init == "xavier" else module.weight[0].numel() ** -0.5
                init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)

    def compute_feature_maps(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """The map after each block or stage; the last one, flattened, is what the classifier reads."""
        raise NotImplementedError

    def compute_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Input of the classifier, `(batch_size, num_features)`."""
        return self.compute_feature_maps(pixel_values)[-1].flatten(1)

    def check_pixel_values(self, pixel_values: torch.Tensor | None) -> None:
        """Refuses what is not a batch of images of the configured size.

        Raises:
            TypeError: If pixels are integers.
            ValueError: If their shape does not fit, or one is not finite.
        """
        wanted = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if pixel_values is None or tuple(pixel_values.shape[1:]) != wanted:
            given = None if pixel_values is None else tuple(pixel_values.shape)
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {', '.join(map(str, wanted))}); got {given}. Prepare "
                "images with `DoorpingImageProcessor`."
            )
        if not pixel_values.is_floating_point():
            raise TypeError(
                f"`pixel_values` must be floating point; got {pixel_values.dtype}. Prepare images with "
                "`DoorpingImageProcessor`."
            )
        if can_look_at(pixel_values) and not pixel_values.detach().sum(dtype=torch.float64).isfinite():
            raise ValueError("`pixel_values` must be finite; got NaN or infinity.")

    @can_return_tuple
    def forward(
        self, pixel_values: torch.FloatTensor | None = None, labels: torch.LongTensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """Class scores of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, image_size, image_size)`):
                Normalized pixels.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Class ids in `[0, num_labels)`; -100 is
                ignored. Floats of shape `(batch_size, num_labels)` are probabilities.
            kwargs: `output_hidden_states` and `return_dict`.

        Returns:
            [`~transformers.modeling_outputs.ImageClassifierOutput`] with `loss` if `labels` are given, `logits` of
            shape `(batch_size, num_labels)`, and with `output_hidden_states` the map after each block.

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If `pixel_values` or `labels` do not fit.
        """
        refuse_unknown_inputs(self, kwargs)
        self.check_pixel_values(pixel_values)
        maps = self.compute_feature_maps(pixel_values.to(next(self.parameters()).dtype))
        logits = self.classifier(maps[-1].flatten(1))
        loss = None if labels is None else compute_classification_loss(logits, labels, self.config)
        output_hidden_states = kwargs.get("output_hidden_states")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=tuple(maps) if output_hidden_states else None
        )


class ClassifierLogits(nn.Module):
    """A network as the distillers call it: logits only, without checks or output classes.

    Its parameters are those of the network, under the same names.

    Args:
        network ([`DistillNetwork`]): Or another classifier of transformers, which is called as usual.
    """

    def __init__(self, network: PreTrainedModel):
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if isinstance(self.network, DistillNetwork):
            return self.network.classifier(self.network.compute_embeddings(pixel_values))
        return self.network(pixel_values=pixel_values).logits


def split_batch(network: nn.Module, size: int) -> list[slice]:
    """Parts of a batch whose maps fit into the cache of a core, which makes gradients of wide batches much faster.

    The gradient of the mean loss is the weighted mean of those of the parts, unless a batch norm looks at the batch.
    """
    sees_batch = any(isinstance(module, nn.BatchNorm2d) and module.training for module in network.modules())
    length = size if sees_batch else PART_SIZE
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


__all__ = ["ClassifierLogits", "DistillNetwork", "split_batch"]
