"""What Mitsuba 3.10 and later imports by itself: the ``gdpt`` integrator, without an import.

The entry point ``mitsuba`` of pyproject.toml names this module. Mitsuba imports it when a variant
is first set and reloads it after every change of the variant, as it does with its own integrators
in Python. Up to 3.9 nobody looks at the entry point: there ``import mitsuba_gdpt`` is what makes
the plugin known. Both may happen in one process, in any order.
"""

from __future__ import annotations

from mitsuba_gdpt import integrators

integrators.register()
