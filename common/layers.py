"""The layers that a network may have.

`define` builds networks of these, and an architecture or a model that names any other is refused
(`common.model_files`). To add a kind of layer, add its name to the list below, and use it in
`build_network` in `stages/define.py`.
"""

from common.backend import keras

NAMES = (
    "Activation",
    "BatchNormalization",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "InputLayer",
    "MaxPooling2D",
)


def __getattr__(name: str) -> type[keras.layers.Layer]:
    """Return the layer of this name, as ``layers.Conv2D``; see PEP 562.

    Raises
    ------
    AttributeError
        If it is not one that a network may have.
    """
    if name in NAMES:
        return getattr(keras.layers, name)
    raise AttributeError(f"{name} is not in the list of common/layers.py")
