"""What measures: this project against what its users would run instead, and how it grows."""

from common import startup  # noqa: F401  it must be imported first
