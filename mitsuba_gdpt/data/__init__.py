"""Data sets of renders: planned, rendered, stored and read."""
