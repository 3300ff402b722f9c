import pytest

from .report import MARK, PLUGIN_NAME, Tally
from .suites import NOT_RUN, OUR_SKIP, find_marks


def pytest_configure(config: pytest.Config) -> None:
    for mark in find_marks():
        config.addinivalue_line("markers", f"{mark}: used by transformers' test suites")
    if not hasattr(config, "workerinput"):  # with pytest-xdist, the controller counts
        config.pluginmanager.register(Tally(OUR_SKIP, NOT_RUN), PLUGIN_NAME)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(item, "cls", None) is not None and hasattr(item.cls, "is_conformance"):
            item.user_properties.append((MARK, item.cls.__name__))
