"""What starts runs: a recipe, several seeds, all results, a queue, workers of one machine."""

from common import startup  # noqa: F401  it must be imported first
