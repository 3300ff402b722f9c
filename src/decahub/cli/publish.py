"""`decahub publish`: upload a model folder to the Hub."""

import argparse
import tempfile
from pathlib import Path

from .table import format_table


HELP = "upload a model folder with the method's code to the Hub, in one commit"
EXAMPLES = """  decahub publish runs/emo/model me/emo-1m-cifar10 --dry-run
  decahub publish runs/emo/model me/emo-1m-cifar10 --private

The access token is the one of `hf auth login`, or $HF_TOKEN."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("repo_id", help="repository, <owner>/<name>; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to commit to; by default the main one")
    parser.add_argument("--message", help="title of the commit")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the files, upload nothing")


def run(arguments: argparse.Namespace) -> int:
    from decahub.hub import publish

    if arguments.dry_run:
        print_staged_files(arguments.folder, arguments.repo_id)
        return 0
    commit = publish(
        arguments.folder,
        arguments.repo_id,
        private=arguments.private,
        commit_message=arguments.message,
        revision=arguments.revision,
    )
    print(f"Published {commit.commit_url}")
    return 0


def print_staged_files(folder: Path, repo_id: str) -> None:
    """Prints what an upload would hold."""
    from decahub.hub import stage_repository
    from decahub.hub.files import CHECKSUMS, list_files

    with tempfile.TemporaryDirectory(prefix="decahub-publish-") as staging:
        stage_repository(folder, repo_id, Path(staging))
        names = [*list_files(Path(staging)), CHECKSUMS]
        rows = [(name, f"{Path(staging, name).stat().st_size:,}") for name in names]
    print(f"{repo_id} would hold (nothing was uploaded):")
    print(format_table(("file", "bytes"), rows))
