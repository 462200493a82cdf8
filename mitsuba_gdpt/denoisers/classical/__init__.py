"""Methods that learn nothing here: solvers, filters, and the networks of others."""

from __future__ import annotations

from mitsuba_gdpt.denoisers.classical import fusion as fusion  # registers its method, as the next
from mitsuba_gdpt.denoisers.classical import nfor as nfor
from mitsuba_gdpt.denoisers.classical import oidn as oidn
from mitsuba_gdpt.denoisers.classical import optix as optix
from mitsuba_gdpt.denoisers.classical import poisson as poisson
from mitsuba_gdpt.denoisers.classical import temporal as temporal
