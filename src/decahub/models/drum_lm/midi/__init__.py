"""Drum performances: files, notes, rolls and text."""
