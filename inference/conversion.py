"""Convert a Keras network to ONNX and to LiteRT, to the same bytes each time."""

import warnings

import numpy as np
import onnx
import tf2onnx

from common.backend import keras, tf, without_greetings
from inference.exported import INPUT, OUTPUT, Description
from inference.litert import with_description

OPSET = 17  # of ONNX: all that these networks need, and any ONNX Runtime since 2022 reads it


def in_float32(model: keras.Model) -> keras.Model:
    """Return a model that computes in 32 bits, with the same weights.

    Neither ONNX Runtime nor LiteRT computes convolutions in bfloat16 on a processor. The weights
    of ``precision: mixed_bfloat16`` are kept in 32 bits anyway.
    """
    text = model.to_json()
    if "mixed_bfloat16" not in text:
        return model
    network = keras.models.model_from_json(text.replace("mixed_bfloat16", "float32"))
    network.set_weights(model.get_weights())
    return network


def from_pixels(network: keras.Model) -> tf.Module:
    """Return a module whose ``function`` takes uint8 pixels and scales them for the network."""
    signature = tf.TensorSpec(network.input_shape, tf.uint8, name=INPUT)

    @tf.function(input_signature=[signature])
    def function(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.cast(images, tf.float32) / 255.0
        for layer in network.layers:
            if isinstance(layer, keras.layers.Flatten):
                # The layer would ask for the number of images while it runs. tf2onnx finds out that
                # nobody needs to ask only sometimes, by the order in which it goes through a set.
                values = tf.reshape(values, (-1, layer.output.shape[1]))
            else:
                values = layer(values, training=False)
        return {OUTPUT: values}

    module = tf.Module()
    module.function, module.signature = function, signature
    # TensorFlow's converters look for the weights in the module and do not find Keras's own there.
    module.weights = [variable.value for variable in network.variables]
    return module


def to_onnx(network: keras.Model, description: Description) -> bytes:
    """Return a network as an ONNX file.

    Parameters
    ----------
    network : keras.Model
        float32 (N, H, W, C) in [0, 1] to float32 (N, classes).
    description : Description
        What the file is to say of itself.

    Returns
    -------
    bytes
        A model with the input ``images``, uint8 (N, H, W, C), and the output ``probabilities``,
        float32 (N, classes).
    """
    module = from_pixels(network)
    model, _ = tf2onnx.convert.from_function(
        module.function, input_signature=[module.signature], opset=OPSET
    )
    put_in_order(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.helper.set_model_props(model, description.to_metadata())
    return model.SerializeToString(deterministic=True)


def put_in_order(graph: onnx.GraphProto) -> None:
    """Put the nodes and constants of a graph in one order, and name them by it.

    tf2onnx goes through sets in the order of addresses in memory: which of several equal constants
    it keeps, and where it puts them, differs from run to run. It also numbers its names. Here a
    node comes after those whose outputs it takes, in the order in which it takes them, and a
    constant where it is first taken.
    """
    maker = {name: node for node in graph.node for name in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    new_names = {value.name: value.name for value in (*graph.input, *graph.output)}
    nodes: list[onnx.NodeProto] = []
    taken: list[onnx.TensorProto] = []
    done: set[str] = set()

    def take(name: str) -> None:
        if name in constants and name not in new_names:
            new_names[name] = f"constant_{len(taken)}"
            taken.append(constants[name])
        elif name in maker and name not in done:
            done.update(maker[name].output)
            for before in maker[name].input:
                take(before)
            for output in maker[name].output:
                new_names.setdefault(output, f"value_{len(new_names)}")
            nodes.append(maker[name])

    for value in graph.output:
        take(value.name)
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [new_names[name] for name in node.input]
        node.output[:] = [new_names[name] for name in node.output]
    for constant in taken:
        constant.name = new_names[constant.name]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    ordered = onnx.helper.make_graph(nodes, graph.name, graph.input, graph.output, taken)
    graph.CopyFrom(ordered)


def to_litert(
    network: keras.Model, description: Description, calibration: np.ndarray | None = None
) -> bytes:
    """Return a network as a LiteRT file, quantised to int8 if there are images to calibrate it.

    Parameters
    ----------
    network, description
        As of `to_onnx`.
    calibration : ndarray of uint8, shape (N, H, W, C), optional
        Images that show which range the output of each layer has. Weights and outputs of layers
        are then whole numbers of 8 bits, each with a scale [1]_.

    Returns
    -------
    bytes
        A model with the input and the output of `to_onnx`, also if it is quantised.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and training of neural networks for efficient
       integer-arithmetic-only inference", CVPR 2018.
    """
    module = from_pixels(network)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.function.get_concrete_function()], module
    )
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    with warnings.catch_warnings(), without_greetings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        return with_description(converter.convert(), description)
