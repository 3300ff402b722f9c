"""Makes docstrings in the notation of transformers readable for mkdocstrings."""

import re

import griffe

from decahub.registry import PUBLIC_NAMES


TYPED_ARGUMENT = re.compile(r"^(\s+\w+) \((.*`.*)\):", re.MULTILINE)
TYPED_RESULT = re.compile(r"^(\s+)`([^`]+)`:", re.MULTILINE)
REFERENCE = re.compile(r"\[`~?([\w.]+)`\](?![\[(])")


class TransformersNotation(griffe.Extension):
    """Links [`Name`] to the page of a public name, and drops the backticks around types of arguments and results."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring:
            text = TYPED_ARGUMENT.sub(lambda match: match[0].replace("`", ""), obj.docstring.value)
            obj.docstring.value = REFERENCE.sub(link, TYPED_RESULT.sub(r"\1\2:", text))


def link(match: re.Match) -> str:
    """A cross-reference to a public name, or else only its name."""
    name = match[1].rpartition(".")[2]
    return f"[`{name}`][{PUBLIC_NAMES[name]}.{name}]" if name in PUBLIC_NAMES else f"`{name}`"
