"""Sets a broken torchvision aside; import it before diffusers, transformers or peft.

Those libraries ask only whether torchvision is installed, then import it at the top of modules that every model needs.
One that was built for another torch ("operator torchvision::nms does not exist") therefore takes down text encoders
and autoencoders that never use it. Where it does not import, it is marked as absent, which both libraries allow for.
"""

import importlib
import importlib.util
import sys
import warnings


def set_broken_torchvision_aside() -> None:
    """Where torchvision is installed but does not import, make this process take it for missing, and say so once.

    `sys.modules[name] = None` is Python's own sign for "there is no such module": `import` raises ModuleNotFoundError
    and `importlib.util.find_spec` returns None.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as problem:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]
        warnings.warn(f"torchvision does not import and is left out ({problem})", stacklevel=2)


set_broken_torchvision_aside()
