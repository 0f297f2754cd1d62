"""All results of this repository on one page: which settings are good, and what made them so."""

from common import startup  # noqa: F401  it must be imported first
