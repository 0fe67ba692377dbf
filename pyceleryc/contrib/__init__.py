"""Extras that most projects do without."""
