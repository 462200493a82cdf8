"""Weights of networks, found by mitsuba_gdpt through an entry point."""

from pathlib import Path

FOLDER = Path(__file__).parent
