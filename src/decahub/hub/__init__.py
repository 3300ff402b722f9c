"""Model folders, their cards, publishing them, and checking that they hold what they say.

Names resolve lazily: rendering a card needs neither torch nor datasets.
"""

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .card_facts import CardArguments
    from .folder import save_model_folder
    from .model_card import check_card, refresh_model_card, render_model_card
    from .publishing import publish, stage_repository
    from .verification import Check, VerificationReport, verify

_HOMES = {
    "CardArguments": "card_facts",
    "Check": "verification",
    "VerificationReport": "verification",
    "check_card": "model_card",
    "publish": "publishing",
    "refresh_model_card": "model_card",
    "render_model_card": "model_card",
    "save_model_folder": "folder",
    "stage_repository": "publishing",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)


__all__ = [
    "CardArguments",
    "Check",
    "VerificationReport",
    "check_card",
    "publish",
    "refresh_model_card",
    "render_model_card",
    "save_model_folder",
    "stage_repository",
    "verify",
]
