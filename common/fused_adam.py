"""Adam, with one operation for each variable where Keras has twelve.

Each of the twelve goes through all weights by itself. In the network of the assignment nine in ten
weights are those of one dense layer: to read and write them so often takes a tenth of a step.
"""

from common.backend import keras, tf


class FusedAdam(keras.optimizers.Adam):
    """Adam [1]_ as TensorFlow's `ApplyAdam` [2]_; all else is Keras's optimizer.

    It keeps the same variables as Keras's and changes them by the same formula, so that their
    values can go on in `keras.optimizers.Adam`. It knows no `amsgrad`.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    .. [2] https://www.tensorflow.org/api_docs/python/tf/raw_ops/ResourceApplyAdam
    """

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Take a step with one variable; Keras calls this for each, on each device."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )
