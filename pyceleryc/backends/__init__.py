"""Result stores: one module for each kind, all with the interface of ``backends.base``."""
