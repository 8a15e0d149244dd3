"""The only place that imports CuPy: is there a GPU that works, and how tiles run on it."""

import warnings

NOT_INSTALLED = "CuPy is not installed"


def probe():
    """Return (cupy, which GPU) if a GPU multiplies two matrices rightly, else (None, the reason in one line)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's warnings say at length what the reason below says in a line
            import cupy
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            return None, NOT_INSTALLED
        return None, _one_line("CuPy is installed but does not load", error)
    except Exception as error:  # a broken CUDA set-up raises many types
        return None, _one_line("CuPy is installed but does not load", error)
    try:
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return None, "CuPy is installed but finds no GPU"
        ones = cupy.ones((4, 4), cupy.float32)
        if float((ones @ ones).sum()) != 64.0:
            return None, "CuPy is installed but the GPU multiplies wrongly"
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    except Exception as error:
        return None, _one_line("CuPy is installed but has no working GPU", error)
    return cupy, f"GPU {properties['name'].decode()}, CuPy {cupy.__version__}"


def run_tiles(task, tiles):
    """A GPU runs its own queue: hand it the tiles in order."""
    for tile in tiles:
        task(*tile)


def _one_line(what, error):
    lines = str(error).strip().splitlines()
    return f"{what}: {type(error).__name__}: {lines[0].strip() if lines else 'no message'}"
