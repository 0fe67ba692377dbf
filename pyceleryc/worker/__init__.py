"""The worker: from settings to the machine."""
