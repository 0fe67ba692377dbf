"""The command line, one module per command (FEATURES §2.14)."""
