"""What makes a committed result again and says whether it holds."""

from common import startup  # noqa: F401  it must be imported first
