"""Compare two revisions and write one report; starts like a stage."""

import stages  # noqa: F401
