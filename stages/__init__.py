"""The four stages of the pipeline."""

from common import startup  # noqa: F401  it must be imported first
