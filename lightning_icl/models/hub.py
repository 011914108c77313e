"""Whether a model is on the Hugging Face hub, asked once: without a network transformers would try for half a minute.

Imports nothing heavy: names are checked before anything slow is loaded.
"""

from lightning_icl.errors import ModelError, did_you_mean
from lightning_icl.models.finding import BUILTIN, ModelSource
from lightning_icl.models.packaged import PACKAGED

_PATIENCE = 10.0  # seconds


def check_on_hub(source: ModelSource) -> None:
    """Refuse a name that is neither on this machine nor on the hub.

    Raises:
        ModelError: the hub has no such model or revision, or cannot be reached while the model is not in its cache.
    """
    if source.local:
        return
    # Only here: a model on this machine needs no hub library.
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub import errors as hub

    try:
        # A cached model is used without a network, as transformers would.
        if isinstance(try_to_load_from_cache(source.location, _first_file(source), revision=source.revision), str):
            return
        HfApi().model_info(source.location, revision=source.revision, timeout=_PATIENCE)
    except hub.HFValidationError as error:
        raise ModelError(f"The model {source.name!r} has a name that the hub does not allow. {hint(source)}") from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(f"--revision {source.revision}: the model {source.name!r} has no such revision.") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"The model {source.name!r} cannot be loaded from the Hugging Face hub: there is none of that name, or it "
            f"is private and this machine is not logged in (`hf auth login`). {hint(source)}"
        ) from error
    except hub.HfHubHTTPError:  # a mirror that does not answer this; its files may be there
        return
    except Exception as error:  # networks fail in many ways, each with an exception of its own
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise ModelError(
            f"The model {source.name!r} cannot be loaded from the Hugging Face hub: {offline}, and it is not in its "
            "cache. Check the name and the network, or download the model where there is one and give its folder. "
            f"{hint(source)}"
        ) from error


def hint(source: ModelSource) -> str:
    """The end of a message about a model that is found nowhere: what may be meant."""
    return did_you_mean(source.name, [*BUILTIN, *PACKAGED, "random:NAME", "a folder", "a hub name"])


def _first_file(source: ModelSource) -> str:
    return source.gguf or "config.json"
