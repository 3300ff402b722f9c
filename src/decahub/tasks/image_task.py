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
        arguments.inputs = expand_folders(arguments.inputs)
        return super().list_inputs(arguments)

    def read_image(self, path: Path) -> "Image":
        """An image as a viewer shows it, in RGB, with white where it is transparent as in the image processors."""
        from decahub.models.shared.pixels import read_image, to_rgb

        return to_rgb(read_image(path))


def expand_folders(names: Sequence[str]) -> list[str]:
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
        found = [path for path in sorted(Path(name).rglob("*")) if path.suffix.lower() in suffixes and path.is_file()]
        if not found:
            raise FileNotFoundError(f"`INPUT` must hold image files if it is a folder; {name!r} holds none.")
        expanded.extend(map(str, found))
    return expanded


__all__ = ["ImageTask", "expand_folders"]
