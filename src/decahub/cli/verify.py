"""`decahub verify`: does a folder hold what its card says?"""

import argparse
from pathlib import Path

from .table import format_table


HELP = "check hashes, configuration, weights and card of a model folder, and measure its scores again"
EXAMPLES = """  decahub verify runs/emo/model --data-dir ~/data
  decahub verify runs/emo/model --limit 500

exit codes: 0 all is well; 1 a check failed; 2 the command could not run; 3 nothing failed, but without the data
the scores were not measured again"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="model folder, or a download of a published one")
    parser.add_argument("--data-dir", type=Path, help="directory of the datasets; by default $DECAHUB_DATA_DIR")
    parser.add_argument(
        "--limit", type=int, help="measure on a sample of LIMIT rows, or nodes, with a wider tolerance"
    )


def run(arguments: argparse.Namespace) -> int:
    from decahub.hub import verify

    from .quiet import silence_libraries

    silence_libraries()
    report = verify(arguments.folder, data_dir=arguments.data_dir, limit=arguments.limit)
    rows = [(check.name, check.outcome, check.detail) for check in report.checks]
    print(format_table(("check", "outcome", "detail"), rows))
    return report.exit_code
