"""What all tasks on images share: inputs of `decahub predict` are image files and folders of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .task import Task


if TYPE_CHECKING:
    from PIL.Image import Image


class ImageTask(Task):
    """A task whose inputs are images."""

    input_kind = "an image file or a folder of images"

    def list_inputs(self, arguments: Any) -> list[Any]:
        arguments.inputs = self.expand_folders(arguments.inputs)
        return super().list_inputs(arguments)

    def expand_folders(self, names: Sequence[str]) -> list[str]:
        """The names, with the image files in a folder, and in those below it, in place of the folder.

        Raises:
            FileNotFoundError: If there is no image file in a folder.
        """
        from PIL import Image

        expanded = []
        for name in names:
            if not Path(name).is_dir():
                expanded.append(name)
                continue
            suffixes = Image.registered_extensions()
            found = (path for path in sorted(Path(name).rglob("*")) if path.suffix.lower() in suffixes)
            kept = self.drop_written((path for path in found if path.is_file()), name)
            if not kept:
                raise FileNotFoundError(f"`INPUT` must hold image files if it is a folder; {name!r} holds none.")
            expanded.extend(kept)
        return expanded

    def read_image(self, path: Path) -> "Image":
        """An image as a viewer shows it, in RGB, with white where it is transparent as in the image processors."""
        from decahub.models.shared.pixels import read_image, to_rgb

        return to_rgb(read_image(path))


__all__ = ["ImageTask"]
