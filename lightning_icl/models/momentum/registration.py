"""What `import lightning_icl` adds to transformers, so that `from_pretrained` alone loads a momentum model.

A momentum model needs its attention function known by name, and its learnt η there before the weights are read, while
transformers has no way of announcing either. So the moment transformers' models are imported, or at once where they are
already, three of its methods get a step more. Until then nothing heavy is imported, and other models never notice.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_MODELS = "transformers.modeling_utils"


def announce_momentum() -> None:
    """Register momentum attention with transformers, now or as soon as it is imported."""
    if _MODELS in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _OnceImported())


class _OnceImported(MetaPathFinder):
    """Registers when transformers' models have been imported, and is gone then."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The other finders' answer, its loader followed by the registration."""
        if name != _MODELS:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(self._execute, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        sys.meta_path.remove(self)
        _register()


def _register() -> None:
    from transformers import PreTrainedModel

    from lightning_icl.models.momentum.conversion import add_learnt_eta, configure_momentum, fill_learnt_eta

    import_module("lightning_icl.models.momentum.forward")
    models: Any = PreTrainedModel
    models.__init__ = _with(models.__init__, after=configure_momentum)
    models.post_init = _with(models.post_init, before=add_learnt_eta)
    models.initialize_weights = _with(models.initialize_weights, after=fill_learnt_eta)


def _with(
    method: Callable[..., Any], before: Callable[[Any], None] | None = None, after: Callable[[Any], None] | None = None
) -> Callable[..., Any]:
    """The method with a step before or after it."""

    @wraps(method)
    def extended(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(self)
        result = method(self, *args, **kwargs)
        if after is not None:
            after(self)
        return result

    return extended
