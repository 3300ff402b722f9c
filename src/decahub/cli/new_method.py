"""`decahub new-method`: the files of a new method, in a checkout of decahub, which pass their tests at once."""

import argparse
import ast
import importlib.util
import json
import keyword
import re
import subprocess
import sys
from pathlib import Path

from decahub.registry import METHODS, PUBLIC_NAMES


HELP = "create a new method in a checkout: model, table entry, tests, converter, procedure, recipe, example"
EXAMPLES = """  decahub new-method my_net --title "My Net: A Small Network" --arxiv 2301.00001
  python -m pytest tests/unit/my_net tests/parity/test_my_net.py tests/conformance/test_my_net.py"""
TEMPLATES = Path(__file__).parents[1] / "templates" / "method"
REGISTRY, PACKAGE, PROJECT = "src/decahub/registry.py", "src/decahub/__init__.py", "pyproject.toml"
MODELS = """
            models=(
                ModelEntry(
                    model_type="new_method",
                    config="NewMethodConfig",
                    auto_classes={
                        "AutoModel": "NewMethodModel",
                        "AutoModelForImageClassification": "NewMethodForImageClassification",
                    },
                    image_processors={"torchvision": "NewMethodImageProcessor", "pil": "NewMethodImageProcessorPil"},
                ),
            ),"""
METHOD = f"""
        Method(
            name="new_method",
            title=NEW_TITLE,
            arxiv=NEW_ARXIV,
            summary="What a user does with it, in one line.",
            tasks=("image-classification",),
            extra="new_method",{MODELS}
        ),"""
NAMES = {
    "configuration_new_method": ("NewMethodConfig",),
    "image_processing_new_method": ("NewMethodImageProcessor",),
    "image_processing_pil_new_method": ("NewMethodImageProcessorPil",),
    "modeling_new_method": ("NewMethodForImageClassification", "NewMethodModel"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", help="folder of the method, such as my_net; may be a planned method from `decahub list`"
    )
    parser.add_argument("--prefix", help="how its classes begin; default: MyNet for my_net")
    parser.add_argument("--title", help="title of the paper")
    parser.add_argument("--arxiv", help="number of the paper, such as 2301.00001")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout; default: the current folder")


def run(arguments: argparse.Namespace) -> int:
    name, root = arguments.name, arguments.root
    prefix = arguments.prefix
    if prefix is None:
        prefix = "".join(word.capitalize() for word in name.split("_"))
    check(name, root, prefix)
    planned = METHODS.get(name)
    title = arguments.title or (planned.title if planned else "Title of the Paper")
    arxiv = arguments.arxiv or (planned.arxiv if planned else "2301.00001")
    words = {
        "NewMethod": prefix,
        "new_method": name,
        "new-method": name.replace("_", "-"),
        "NEW_TITLE": title,
        "NEW_PAPER": f"arXiv {arxiv}",
    }
    files = {replace(path, words): replace(text, words) for path, text in read_templates().items()}
    files |= edit_tables(root, {**words, "NEW_TITLE": json.dumps(title), "NEW_ARXIV": json.dumps(arxiv)})
    write_files({root / path: text for path, text in files.items()})
    subprocess.run([sys.executable, root / f"tests/fixtures/golden/{name}/make_golden.py"], check=True)
    tidy(root, [path for path in files if path.endswith(".py")])
    print("\n".join(files))
    print(
        f"\nTest it:  python -m pytest tests/unit/{name} tests/parity/test_{name}.py tests/conformance/test_{name}.py"
        "\nThen:     docs/adding_a_method.md"
    )
    return 0


def check(name: str, root: Path, prefix: str) -> None:
    """Refuses names or a folder that cannot get a new method, before anything is written."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ValueError(f"`name` must be words in lower case joined by underscores; got {name!r}.")
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", prefix):
        raise ValueError(f"`--prefix` must be a name of a class, such as MyNet; got {prefix!r}.")
    if name in METHODS and METHODS[name].is_ready:
        raise ValueError(f"`name` must be that of a new method; {name!r} is ready. See `decahub list`.")
    if not (root / REGISTRY).is_file():
        raise FileNotFoundError(f"`--root` must be a checkout of decahub; {root / REGISTRY} does not exist.")
    import transformers

    classes = {class_name.replace("NewMethod", prefix) for class_names in NAMES.values() for class_name in class_names}
    if taken := sorted(name for name in classes if name in PUBLIC_NAMES or hasattr(transformers, name)):
        raise ValueError(
            f"`--prefix` must give names that decahub and transformers do not have yet; {prefix!r} gives {taken[0]}."
        )
    existing = [path for path in read_templates() if (root / path.replace("new_method", name)).exists()]
    if existing:
        raise FileExistsError(f"No file may exist yet; got {existing[0].replace('new_method', name)}.")


def write_files(files: dict[Path, str]) -> None:
    """Writes all files under temporary names, then renames them: none of them is changed if one cannot be written."""
    partials = {path: path.with_name(f".{path.name}.partial") for path in files}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partials[path].write_text(text, encoding="utf-8")
        for path, partial in partials.items():
            partial.replace(path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def read_templates() -> dict[str, str]:
    """Path in the checkout to text, of all template files."""
    return {
        path.relative_to(TEMPLATES).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(TEMPLATES.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def replace(text: str, words: dict[str, str]) -> str:
    """The text with the names of the new method."""
    return re.sub("|".join(words), lambda match: words[match[0]], text)


def edit_tables(root: Path, words: dict[str, str]) -> dict[str, str]:
    """The files that list methods and names, with the new ones."""
    registry, package, project = ((root / path).read_text(encoding="utf-8") for path in (REGISTRY, PACKAGE, PROJECT))
    name = words["new_method"]
    extra = "" if re.search(rf"^{name} = \[", project, re.MULTILINE) else f"{name} = []\n"
    return {
        REGISTRY: add_method(registry, name, words),
        PACKAGE: add_names(package, words),
        PROJECT: project.replace("\n\ntrain = [", f"\n{extra}\ntrain = [", 1),
    }


def add_method(registry: str, name: str, words: dict[str, str]) -> str:
    """The table with the models of a planned method, or with a method that is new to it."""
    calls = {
        keyword_.value.value: node
        for node in ast.walk(ast.parse(registry))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Method"
        for keyword_ in node.keywords
        if keyword_.arg == "name" and isinstance(keyword_.value, ast.Constant)
    }
    lines = registry.splitlines()
    is_planned = name in calls
    last = (calls[name] if is_planned else max(calls.values(), key=lambda node: node.lineno)).end_lineno or 0
    lines.insert(last - 1 if is_planned else last, replace(MODELS if is_planned else METHOD, words).lstrip("\n"))
    return "\n".join(lines) + "\n"


def add_names(package: str, words: dict[str, str]) -> str:
    """`decahub/__init__.py` with the public names of the method, for people and for type checkers."""
    imports = "".join(
        f"    from decahub.models.new_method.{module} import {', '.join(names)}\n" for module, names in NAMES.items()
    )
    start = "if TYPE_CHECKING:\n"
    package = package.replace(start, start + replace(imports, words), 1)
    before, found, exported = package.partition("__all__ = ")
    lines = [line.strip().rstrip(",") for line in exported.strip().splitlines()[1:-1]]
    computed = [line for line in lines if line.startswith("*")]  # lists of names
    names = {*lines, *(f'"{replace(name, words)}"' for names in NAMES.values() for name in names)}.difference(computed)
    lines = [*sorted(names), *computed]
    return before + found + "[\n" + "".join(f"    {line},\n" for line in lines) + "]\n"


def tidy(root: Path, paths: list[str]) -> None:
    """Sorts imports and breaks lines, where ruff is installed."""
    if importlib.util.find_spec("ruff") is not None:
        ruff = [sys.executable, "-m", "ruff"]
        subprocess.run([*ruff, "check", "--quiet", "--select", "I", "--fix", *paths], cwd=root, check=True)
        subprocess.run([*ruff, "format", "--quiet", *paths], cwd=root, check=True)
