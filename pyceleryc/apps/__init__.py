"""Programs around the library's objects."""
