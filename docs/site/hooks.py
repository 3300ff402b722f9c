"""The pages of the site: Markdown of the checkout at the paths it has there, and an API reference from the code.

Because every page keeps its path, relative links work on the site as they do in the repository. Nothing here names a
method, a module or a command: a new one appears by itself.
"""

import ast
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from decahub.cli.main import COMMANDS, build_parser
from decahub.registry import METHODS, PUBLIC_NAMES, TASKS


ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "decahub"
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/tutorials/*.md",
    "src/decahub/models/*/README.md",
    "model_cards/*/README.md",
)
# Areas that have pages of their own form, and those that hold parts of models.
OTHER_AREAS = {"cli", "metrics", "models", "pipelines", "templates"}
LINK = re.compile(r"\]\(([^)\s#]+)")
IMAGE = re.compile(r'<img[^>]+src="([^"]+)"')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces what lies in `docs/` by the pages of the checkout, and adds the API reference."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    for path in [*pages, *find_linked_files(pages)]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    reference = build_reference()
    for name, text in reference.items():
        files.append(File.generated(config, name, content=text))
    config.nav = build_navigation(reference)
    return files


def build_navigation(reference: Iterable[str]) -> list:
    """The site's menu."""
    methods = [f"api/models/{name}.md" for name in METHODS if f"api/models/{name}.md" in reference]
    areas = [{Path(name).stem.replace("_", " "): name} for name in reference if name not in methods]
    return [
        {"Home": "README.md"},
        {"Tutorials": [f"docs/tutorials/{path.name}" for path in sorted((ROOT / "docs/tutorials").glob("*.md"))]},
        {"Your own dataset": "docs/your_own_data.md"},
        {"Results": "docs/results.md"},
        {"Speed and memory": "docs/benchmarks.md"},
        {"API reference": [{"models": [{Path(name).stem: name} for name in methods]}, *areas]},
        {"Architecture": "docs/architecture.md"},
        {"Adding a method": "docs/adding_a_method.md"},
        {"Contributing": "CONTRIBUTING.md"},
        {"Changelog": "CHANGELOG.md"},
    ]


def find_linked_files(pages: Iterable[Path]) -> list[Path]:
    """Files of the checkout that pages link to or show, other than pages."""
    found = set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in LINK.findall(text) + IMAGE.findall(text):
            path = Path(os.path.normpath(page.parent / unquote(target)))
            if path.is_file() and path.suffix != ".md" and path.is_relative_to(ROOT):
                found.add(path)
    return sorted(found)


def build_reference() -> dict[str, str]:
    """Path of each page of the API reference to its Markdown."""
    pages = {}
    for method in METHODS.values():
        if method.is_ready:
            room = f"decahub.models.{method.name}."
            names = [f"{module}.{name}" for name, module in PUBLIC_NAMES.items() if module.startswith(room)]
            intro = f"{method.summary} Paper: [{method.title}]({method.paper_url})."
            pages[f"api/models/{method.name}.md"] = format_page(method.name, names, intro)
    pages["api/auto.md"] = format_page("Auto classes", [], describe_auto_classes())
    pipelines = [f"{module}.{name}" for name, module in PUBLIC_NAMES.items() if ".pipelines." in module]
    pages["api/pipelines.md"] = format_page("pipelines", pipelines)
    functions = ["decahub.metrics.load_metric", "decahub.metrics.list_metrics"]
    pages["api/metrics.md"] = format_page("metrics", functions + find_metrics())
    for folder in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        if folder.name not in OTHER_AREAS:
            pages[f"api/{folder.name}.md"] = format_page(folder.name, find_names(folder), read_docstring(folder))
    pages["api/command_line.md"] = describe_commands()
    return dict(sorted(pages.items()))


def describe_auto_classes() -> str:
    """The Auto classes that the table of tasks asks for; `decahub.auto` makes them when it is imported."""
    lines = {
        task.auto_class: f"- `{task.auto_class}` loads models for {task.name.replace('-', ' ')}."
        for task in reversed(TASKS.values())
        if task.is_new
    }
    intro = "Auto classes of tasks that transformers has none for, with `from_pretrained` and `from_config` as usual:"
    return "\n".join([intro, "", *lines.values()])


def format_page(title: str, identifiers: Iterable[str], intro: str = "") -> str:
    """A page that documents the given objects."""
    return "\n\n".join([f"# {title}", intro, *(f"::: {identifier}" for identifier in identifiers)]) + "\n"


def read_docstring(folder: Path) -> str:
    """What the docstring of a package says."""
    return ast.get_docstring(parse(folder / "__init__.py")) or ""


def find_names(folder: Path) -> list[str]:
    """The public objects of a package: what its `__all__` names, or else its public modules."""
    module = f"decahub.{folder.name}"
    tree = parse(folder / "__init__.py")
    exported = next((ast.literal_eval(value) for name, value in find_assignments(tree) if name == "__all__"), None)
    if exported is None:
        return [f"{module}.{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]
    homes = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        if node.level == 0
        else f"{module}.{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return [homes.get(name, f"{module}.{name}") for name in exported]


def find_metrics() -> list[str]:
    """The classes of all metrics; their folders are not packages, so `paths` in mkdocs.yml lists them."""
    return [
        f"{path.stem}.{node.name}"
        for path in sorted(PACKAGE.glob("metrics/*/*.py"))
        for node in parse(path).body
        if isinstance(node, ast.ClassDef) and any("Metric" in ast.unparse(base) for base in node.bases)
    ]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def find_assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Names that a module assigns at its top, with the values."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def describe_commands() -> str:
    """The help of each command."""
    os.environ["COLUMNS"] = "80"  # a code block shows no more
    parser = build_parser()
    subparsers = next(action for action in parser._actions if action.dest == "command")
    sections = [f"## decahub {name}\n\n```text\n{subparsers.choices[name].format_help()}```" for name in COMMANDS]
    return "\n\n".join(["# Command line", f"```text\n{parser.format_help()}```", *sections]) + "\n"
