"""What reads Git and compares two revisions; it starts no run."""

from common import startup  # noqa: F401  it must be imported first
