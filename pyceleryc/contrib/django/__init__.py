"""For projects that use Django."""
