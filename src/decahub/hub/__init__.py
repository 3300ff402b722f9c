"""Model folders, their cards, publishing them, and checking that they hold what they say.

Names resolve lazily: rendering a card needs neither torch nor datasets.
"""

from typing import TYPE_CHECKING

from decahub.lazy import attach


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

__getattr__, __dir__ = attach(__name__, _HOMES)


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
