"""Search better settings: trials that are DVC experiments, proposed by Optuna."""

from common import startup  # noqa: F401  it must be imported first
