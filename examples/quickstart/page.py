"""Writes the panels into one page that needs no other file and no network."""

import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from panels import PROJECT, Panel, show_path

from decahub.registry import METHODS


def write_page(path: Path, panels: dict[str, Panel], fine_tuning: Panel, seconds: float) -> Path:
    """Renders `page.html`.

    Args:
        path (`Path`): where the page goes; links into the project are relative to it.
        panels (`dict[str, Panel]`): by name of the method.
        fine_tuning (`Panel`): the one that was trained just now.
        seconds (`float`): that everything took.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        panels=panels,
        fine_tuning=fine_tuning,
        methods=METHODS,
        planned=[method for method in METHODS.values() if not method.is_ready],
        seconds=seconds,
        link=lambda target: Path(os.path.relpath(PROJECT / target, path.parent)).as_posix(),
        show_path=show_path,
    )
    path.write_text(html, encoding="utf-8")
    return path
