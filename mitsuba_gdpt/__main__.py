"""``python -m mitsuba_gdpt`` is the same as ``mitsuba-gdpt``."""

from __future__ import annotations

from mitsuba_gdpt.cli import main

if __name__ == "__main__":
    main()
