"""How the data is got."""

from common import startup  # noqa: F401  it must be imported first
