"""The processor of RefT: images with annotations and support in one call."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack

from .support.shots import split_pairs


Support = Mapping[str, Sequence[tuple[Any, Any]]] | Sequence[tuple[str, Sequence[tuple[Any, Any]]]]
"""Class name to its shots, pairs of an image and its instance."""


class RefTProcessorKwargs(ProcessingKwargs, total=False):
    """Keywords of a call: those of the image processor."""

    _defaults = {}


class RefTProcessor(ProcessorMixin):
    """Prepares images, annotations and support for RefT, and turns its outputs into instances.

    Args:
        image_processor ([`RefTImageProcessor`]): what prepares images.
    """

    valid_processor_kwargs = RefTProcessorKwargs

    def __init__(self, image_processor: Any = None, **kwargs: Any):
        super().__init__(image_processor, **kwargs)

    def __call__(
        self,
        images: Any = None,
        support: Support | None = None,
        annotations: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        label2id: Mapping[str, int] | None = None,
        **kwargs: Unpack[RefTProcessorKwargs],
    ) -> BatchFeature:
        """Prepares what is given.

        Args:
            images: one image or a list.
            support (`Mapping[str, Sequence[tuple]]`, *optional*): class name to its shots, each an image and its
                instance (mask, box, COCO RLE or polygons); also a list of such pairs of name and shots, in which the
                shots of equal names are put together. It serves all images of the batch.
            annotations (`Sequence[Sequence[Mapping]]`, *optional*): targets, as [`RefTImageProcessor`] takes them.
            label2id (`Mapping[str, int]`, *optional*): ids of the support classes; by default they are counted.
            kwargs: options of the image processor.

        Returns:
            [`~transformers.BatchFeature`] with the inputs of the model, the support without a batch axis:
            `support_pixel_values` `(num_ways, num_shots, 3, size, size)`, `support_masks`, `support_valid` (classes
            with fewer shots are padded) and `support_class_ids`.

        Raises:
            ValueError: If nothing is given, something does not fit, or a class has no usable shot.
        """
        if images is None and support is None:
            raise ValueError("`images` or `support` must be given; got neither.")
        options = self._merge_kwargs(RefTProcessorKwargs, tokenizer_init_kwargs={}, **kwargs)["images_kwargs"]
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, annotations=annotations, **options))
        elif annotations is not None:
            raise ValueError("`annotations` must come with `images`.")
        if support is not None:
            data.update(self.prepare_support(support, label2id))
        return BatchFeature(data)

    def prepare_support(self, support: Support, label2id: Mapping[str, int] | None = None) -> dict[str, torch.Tensor]:
        """The support as tensors, classes in the order of their names; see `__call__`."""
        shots: dict[str, list[tuple[Any, Any]]] = {}
        for name, given in support.items() if isinstance(support, Mapping) else support:
            shots.setdefault(name, []).extend(given)
        if not shots:
            raise ValueError("`support` must hold at least one class; got none.")
        encoded = {}
        for name, pairs in shots.items():
            if not pairs:
                raise ValueError(f"`support` must hold at least one shot of each class; {name!r} has none.")
            images, instances = split_pairs(name, pairs)
            try:
                encoded[name] = self.image_processor.preprocess_support(images, instances)
            except (TypeError, ValueError) as error:
                raise type(error)(f"Support of {name!r}: {error}") from error
            if not encoded[name]["support_valid"].any():
                raise ValueError(
                    f"`support` must hold a shot with a mask for each class; all masks of {name!r} are empty."
                )
        keys = ("support_pixel_values", "support_masks", "support_valid")
        padded = {
            key: torch.nn.utils.rnn.pad_sequence([parts[key] for parts in encoded.values()], batch_first=True)
            for key in keys
        }
        unknown = [name for name in shots if label2id is not None and name not in label2id]
        if unknown:
            raise ValueError(f"`label2id` must hold the names of the support; {unknown[0]!r} is missing.")
        ids = [place if label2id is None else label2id[name] for place, name in enumerate(shots)]
        return {**padded, "support_class_ids": torch.tensor(ids)}

    def post_process_instance_segmentation(self, outputs: Any, **kwargs: Any) -> list[Any]:
        """Instances of each image; see [`RefTImageProcessor.post_process_instance_segmentation`]."""
        return self.image_processor.post_process_instance_segmentation(outputs, **kwargs)


__all__ = ["RefTProcessor"]
