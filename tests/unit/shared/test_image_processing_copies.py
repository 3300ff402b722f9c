"""Rooms stand alone, so EMO and TinyMIM hold the same image processing: a change of one must reach the other."""

import ast
from pathlib import Path

import pytest

import decahub


MODELS = Path(decahub.__file__).parent / "models"


def read_code(path: Path, prefix: str, name: str) -> str:
    """Code of a file without docstrings, and with neutral names of the method."""
    text = path.read_text().replace(prefix, "Method").replace(name, "method")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


@pytest.mark.parametrize("file", ["image_processing", "image_processing_pil"])
def test_image_processing_of_emo_and_tinymim_is_the_same_code(file):
    emo = read_code(MODELS / "emo" / f"{file}_emo.py", "Emo", "emo")
    tinymim = read_code(MODELS / "tinymim" / f"{file}_tinymim.py", "TinyMim", "tinymim")

    assert tinymim == emo
