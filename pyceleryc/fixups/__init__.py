"""Fixups adapt an app to the framework it is used in."""
