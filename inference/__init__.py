"""What a trained model is for: exporting it, asking it, serving it."""

from common import startup  # noqa: F401  it must be imported first
