"""What the conformance tests ran, passed, skipped and failed.

    python -m tests.conformance.report [--json FILE]

Every pytest run that includes tests/conformance ends with the same lines.
"""

import argparse
import json
import os
from collections import Counter
from pathlib import Path

import pytest


PLUGIN_NAME = "conformance-tally"
MARK = "conformance"  # user property that tells a test of the suites from a test of the harness


class Tally:
    """A pytest plugin that counts the outcomes of all tests which come from transformers' suites.

    Args:
        our_skip (`str`): how the reason of a skip that is ours begins.
        not_run (`str`): how the reason begins by which whole modules are skipped for want of the suites.
    """

    def __init__(self, our_skip: str, not_run: str):
        self.our_skip = our_skip
        self.not_run = not_run
        self.outcomes: dict[str, str] = {}
        self.subtests: Counter[str] = Counter()
        self.our_skips: dict[str, str] = {}
        self.library_skips: Counter[str] = Counter()
        self.modules_not_run: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and self.not_run in str(report.longrepr):
            self.modules_not_run[str(report.nodeid)] = _read_reason(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if MARK not in dict(report.user_properties):
            return
        test = str(report.nodeid)
        if hasattr(report, "context"):  # a subtest; the report of its test itself may say "passed" all the same
            self.subtests[report.outcome] += 1
            if report.failed:
                self.outcomes[test] = "failed"
        elif report.when == "call" or report.outcome != "passed":
            self._add(test, report)

    def _add(self, test: str, report: pytest.TestReport) -> None:
        outcome = report.outcome
        if outcome == "skipped":
            reason = _read_reason(report)
            if reason.startswith(self.our_skip):
                outcome = "skipped by us"
                self.our_skips[test] = reason.removeprefix(self.our_skip)
            else:
                outcome = "skipped by the library"
                self.library_skips[reason] += 1
        if self.outcomes.get(test) != "failed":  # whatever failed, a subtest or a teardown, outweighs the rest
            self.outcomes[test] = outcome

    def summarize(self) -> dict:
        """Counts and reasons, ready for JSON."""
        counts = Counter(self.outcomes.values())
        return {
            "run": counts["passed"] + counts["failed"],
            "passed": counts["passed"],
            "failed": counts["failed"],
            "skipped_by_us": counts["skipped by us"],
            "skipped_by_the_library": counts["skipped by the library"],
            "subtests": dict(self.subtests),
            "our_skips": dict(sorted(self.our_skips.items())),
            "library_skips": dict(self.library_skips.most_common()),
            "modules_not_run": self.modules_not_run,
        }

    def pytest_terminal_summary(self, terminalreporter) -> None:
        write_summary(terminalreporter, self.summarize())


def write_summary(terminal, summary: dict) -> None:
    """Write the closing lines; loudly, where the suites could not be had."""
    if summary["modules_not_run"]:
        terminal.section("CONFORMANCE NOT RUN", sep="!", red=True, bold=True)
        for reason in sorted(set(summary["modules_not_run"].values())):
            terminal.write_line(reason)
    if not summary["run"]:
        return
    terminal.section("conformance to transformers' own suites")
    terminal.write_line(
        f"run {summary['run']}, passed {summary['passed']}, failed {summary['failed']}, "
        f"skipped by us {summary['skipped_by_us']}, skipped by the library {summary['skipped_by_the_library']} "
        f"(subtests passed: {summary['subtests'].get('passed', 0)})"
    )
    for test, reason in summary["our_skips"].items():
        terminal.write_line(f"  skipped by us: {test.split('::', 1)[-1]}: {reason}")


def _read_reason(report) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


class _Keeper:
    """Gets the tally out of the run: `conftest.py` makes it, under a name, in a module of its own."""

    def __init__(self):
        self.summary: dict = {}

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        tally = config.pluginmanager.get_plugin(PLUGIN_NAME)
        self.summary = tally.summarize() if tally else {}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the conformance tests and say what was run, passed and skipped.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the counts and all reasons there")
    arguments = parser.parse_args()

    keeper = _Keeper()
    code = pytest.main([str(Path(__file__).parent), "--quiet", "--disable-warnings"], plugins=[keeper])
    for reason, count in keeper.summary.get("library_skips", {}).items():
        print(f"  skipped by the library, {count} times: {reason}")
    if arguments.json:
        draft = arguments.json.with_name(f".{arguments.json.name}.draft")
        draft.write_text(json.dumps(keeper.summary, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, arguments.json)
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
