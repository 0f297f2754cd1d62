"""The network that is trained in place of the one described: the same function in less time."""

from common.backend import keras, tf
from common.fast_layers import FastBatchNormalization, FastConv2D
from common.fused_adam import FusedAdam

Size = tuple[int, ...]  # height and width in pixels; none for what is no image

FEW_PIXELS = 6  # up to this height and width of its output, FastConv2D takes less time


def training_network(model: keras.Sequential) -> keras.Model:
    """Return a network of the same function and weights that takes less time to train.

    - Pixels that change no output are cut off: pooling drops the last row and column where
      their number is odd. In the assignment's network a sixth of the work of each convolution
      goes into them.
    - The ReLU of a convolution waits for the pooling that follows: it leaves the largest value
      of each window the largest, and has a quarter of the values to look at then.
    - Without a GPU, some layers are those of `common.fast_layers`.

    Parameters
    ----------
    model : keras.Sequential
        What `common.model_files.read_architecture` returns.

    Returns
    -------
    keras.Model
        It takes the same images. Its weights are copies, in the same order.
    """
    outputs = inputs = keras.Input(model.input_shape[1:])
    sizes: list[Size] = [model.output_shape[1:-1]]
    for layer in reversed(model.layers):
        sizes.insert(0, size_needed(layer, sizes[0]))
    is_waiting = False
    for layer, following, size in zip(model.layers, [*model.layers[1:], None], sizes, strict=False):
        unseen = [(0, n - seen) for n, seen in zip(outputs.shape[1:-1], size, strict=True)]
        if any(last for _, last in unseen):
            outputs = keras.layers.Cropping2D(unseen, dtype=layer.dtype_policy)(outputs)
        config = layer.get_config()
        pooling_follows = isinstance(following, keras.layers.MaxPooling2D)
        waits = pooling_follows and config.get("activation") == "relu"
        if waits:
            config["activation"] = "linear"
        outputs = fastest_kind(layer).from_config(config)(outputs)
        if is_waiting:
            outputs = keras.layers.Activation("relu", dtype=layer.dtype_policy)(outputs)
        is_waiting = waits
    network = keras.Model(inputs, outputs, name=model.name)
    network.set_weights(model.get_weights())
    return network


def fastest_kind(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
    """Return the class of layers that computes what a layer does in the least time.

    With a GPU, or where several devices share a batch, of which one may have no image, it is the
    layer's own.
    """
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    if several or tf.config.list_physical_devices("GPU"):
        return type(layer)
    if isinstance(layer, keras.layers.BatchNormalization):
        is_usual = layer.trainable and layer.scale and layer.center and not layer.renorm
        of_images = len(layer.output.shape) == 4 and layer.axis in (-1, 3)
        return FastBatchNormalization if is_usual and of_images else type(layer)
    if isinstance(layer, keras.layers.Conv2D) and layer.compute_dtype == "bfloat16":
        is_plain = layer.padding == "valid" and layer.strides == layer.dilation_rate == (1, 1)
        is_usual = layer.groups == 1 and layer.data_format == "channels_last"
        if is_plain and is_usual and max(layer.output.shape[1:-1]) <= FEW_PIXELS:
            return FastConv2D
    return type(layer)


def size_needed(layer: keras.layers.Layer, size: Size) -> Size:
    """Return how much of a layer's input is needed, from its first row and column.

    Parameters
    ----------
    layer : keras.layers.Layer
        A layer of a network.
    size : tuple of int
        How much of its output is needed.

    Returns
    -------
    tuple of int
        All of the input, unless each output depends on the inputs of a window alone, without
        padding around the image.
    """
    config = layer.get_config()
    window = config.get("kernel_size") or config.get("pool_size")
    dilation = config.get("dilation_rate", (1, 1))
    if isinstance(layer, keras.layers.Activation):
        return size
    if window and config["padding"] == "valid" and dilation == (1, 1):
        lengths = zip(size, config["strides"], window, strict=True)
        return tuple((number - 1) * stride + length for number, stride, length in lengths)
    return layer.input.shape[1:-1]


def finished_model(model: keras.Sequential, trained: keras.Model) -> keras.Sequential:
    """Compile the network described with plain Keras, in the state of the one that was trained.

    Parameters
    ----------
    model : keras.Sequential
        What `read_architecture` returns; it takes the weights.
    trained : keras.Model
        What `training_network` made of it, compiled; its optimizer's state is copied.

    Returns
    -------
    keras.Sequential
        `model`.
    """
    model.set_weights(trained.get_weights())
    optimizer = trained.optimizer
    plain = keras.optimizers.Adam if isinstance(optimizer, FusedAdam) else type(optimizer)
    model.compile(
        optimizer=plain.from_config(optimizer.get_config()),
        loss=trained.loss,
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    for copy, variable in zip(model.optimizer.variables, optimizer.variables, strict=True):
        copy.assign(variable.numpy())
    return model
