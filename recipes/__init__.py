"""Named settings, and what runs them; starts like a stage."""

import stages  # noqa: F401
