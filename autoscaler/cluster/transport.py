"""kubernetes-asyncio's authentication and transport, without its models.

`import kubernetes_asyncio` reads some 800 generated modules, one for each API object and group, of which we use none:
38 MiB and a fifth of a second. Here its packages are entered without running their `__init__`, and only the modules
that we call are read. See docs/decisions/0023.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "kubernetes_asyncio"
_CLIENT: Final = f"{_PACKAGE}.client"


def _transport() -> tuple[Any, Any, Any]:
    """(ApiClient, Configuration, the package config)."""
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{_PACKAGE} is not installed")
    place = Path(found.submodule_search_locations[0])
    entered = {name: ModuleType(name) for name in (_PACKAGE, _CLIENT, f"{_CLIENT}.models")}
    entered[_PACKAGE].__path__ = [str(place)]
    entered[_CLIENT].__path__ = [str(place / "client")]
    before = {name: sys.modules[name] for name in entered if name in sys.modules}
    sys.modules.update(entered)
    try:
        from kubernetes_asyncio.client.api_client import ApiClient
        from kubernetes_asyncio.client.configuration import Configuration

        vars(entered[_CLIENT]).update(ApiClient=ApiClient, Configuration=Configuration)
        from kubernetes_asyncio import config  # takes both from there
    finally:
        for name in entered:  # whoever asks for the package itself gets the whole of it
            del sys.modules[name]
        sys.modules.update(before)
    return ApiClient, Configuration, config


ApiClient, Configuration, config = _transport()
