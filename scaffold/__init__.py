"""`make new`: a repository for images of one's own, with this code and without MNIST."""

from common import startup  # noqa: F401  it must be imported first
