"""The loader of the default app: it reads the module ``celeryconfig``."""
from __future__ import annotations

import os
import warnings
from typing import Any

from pyceleryc.exceptions import NotConfigured
from pyceleryc.loaders.base import BaseLoader
from pyceleryc.utils.collections import DictAttribute

__all__ = ('Loader', 'DEFAULT_CONFIG_MODULE')

DEFAULT_CONFIG_MODULE = 'celeryconfig'


class Loader(BaseLoader):
    """Reads the module ``celeryconfig``, or the one that ``CELERY_CONFIG_MODULE`` names."""

    def setup_settings(self, settingsdict: Any) -> DictAttribute:
        """Return the settings that are the attributes of *settingsdict*."""
        return DictAttribute(settingsdict)

    def read_configuration(self, fail_silently: Any = True) -> Any:
        """Return the settings in the module.

        :param fail_silently: without the module there are no settings, rather than an
            error; a module that is named in the environment must exist all the same.
        """
        named = os.environ.get('CELERY_CONFIG_MODULE')
        name = named or DEFAULT_CONFIG_MODULE
        try:
            module = self._import_config_module(name)
        except ModuleNotFoundError as exc:
            if named or not fail_silently or exc.name != name:
                raise
            self._warn_not_configured(name)
            return {}
        self.configured = True
        return self.setup_settings(module)

    def _warn_not_configured(self, name: str) -> None:
        # Only on request: programs that merely import tasks have no such module.
        if os.environ.get('C_WNOCONF'):
            warnings.warn(NotConfigured(
                f'No {name} module found! Please make sure it exists and is available to '
                f'Python.'), stacklevel=3)
