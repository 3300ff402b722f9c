"""Model folders, their cards, publishing them, and checking that they hold what they say.

Names resolve lazily: rendering a card needs neither torch nor datasets.
"""

from typing import TYPE_CHECKING

from decahub.lazy import attach


if TYPE_CHECKING:
    from .card_facts import CardArguments, FolderFacts
    from .model_card import check_card, render_card
    from .model_folder import ModelFolder
    from .publishing import publish, stage_repository
    from .saving import save_model_folder, save_run
    from .verification import Check, VerificationReport, verify

__getattr__, __dir__ = attach(__name__, __file__)

__all__ = [
    "CardArguments",
    "Check",
    "FolderFacts",
    "ModelFolder",
    "VerificationReport",
    "check_card",
    "publish",
    "render_card",
    "save_model_folder",
    "save_run",
    "stage_repository",
    "verify",
]
