"""Keeps libraries from writing between the lines of a command."""


def silence_libraries() -> None:
    """Hides progress bars and hints of transformers; errors still show."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
