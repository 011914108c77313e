"""How threads wait and memory goes back in the command line's own processes; other programs decide themselves."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and values of glibc's malloc.h
_LARGE = 4 << 20


def prepare_process() -> None:
    """Settle how threads wait and when memory goes back, where the environment has not; before torch is imported.

    Threads that wait for each other by spinning slow small models manifold once another program wants a core. Hidden
    states of a batch, taken from glibc's heap, leave it full of holes that grow with the number of batches; blocks of
    their own go back when they are freed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # transformers would ask the hub, in a thread of its own, to convert somebody's pickle files.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    # Whoever has tuned malloc knows better.
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.getenv("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or chosen:
        return
    # By call and not by variable: glibc reads its variables before the program starts.
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        # Room for what a layer takes at once: given back and taken anew in each, it costs up to a sixth of the time.
        library.mallopt(_M_TRIM_THRESHOLD, 16 * _LARGE)
