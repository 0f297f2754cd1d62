"""Layers of Keras that compute the same, but for rounding, in less time in training without a GPU.

How much less, and what was tried besides, is in docs/benchmark.md.
"""

from collections.abc import Callable

from common.backend import keras, tf

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@tf.custom_gradient
def convolve(images: tf.Tensor, filters: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    """Convolve images with filters, without padding; the gradient of the filters is quicker.

    This gradient is itself a convolution [1]_: of the images with the gradient of the output,
    where the images of the batch are in the place of the channels. Where the output has few
    pixels, oneDNN computes it so in as little as a third of the time that its own way takes.

    Parameters
    ----------
    images : Tensor, shape (N, H, W, channels)
        The images.
    filters : Tensor, shape (h, w, channels, filters)
        The filters.

    Returns
    -------
    Tensor, shape (N, H - h + 1, W - w + 1, filters)
        The output. The function below comes with it, by which TensorFlow takes both gradients.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio and A. Courville, "Deep learning", MIT Press, 2016,
       section 9.5.
    """

    def gradients(of_output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_images = tf.nn.conv2d_transpose(
            of_output, filters, tf.shape(images), strides=1, padding="VALID"
        )
        channels_as_images = tf.transpose(images, [3, 1, 2, 0])
        images_as_channels = tf.transpose(of_output, [1, 2, 0, 3])
        of_filters = tf.nn.conv2d(channels_as_images, images_as_channels, 1, "VALID")
        return of_images, tf.transpose(of_filters, [1, 2, 0, 3])

    return tf.nn.conv2d(images, filters, 1, "VALID"), gradients


class FastConv2D(keras.layers.Conv2D):
    """A convolution without padding, strides or dilation, by `convolve`."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve images; Keras calls this before it adds the bias."""
        return convolve(inputs, tf.convert_to_tensor(kernel))


class FastBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation as one operation of TensorFlow [1]_ where Keras has a dozen.

    What is not training goes Keras's way.

    References
    ----------
    .. [1] https://www.tensorflow.org/api_docs/python/tf/raw_ops/FusedBatchNormV3
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalise a batch, and move the averages of mean and variance towards its own."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, unbiased_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # Keras averages the variance divided by the number of values, not by one less.
        values = tf.cast(tf.size(inputs) / tf.shape(inputs)[-1], mean.dtype)
        variance = unbiased_variance * (values - 1) / values
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs
