"""Linear systems of images."""
