"""How much a lesson computes: `ci` (seconds), `lesson` (up to three minutes) or `full` (as long as it takes).

A notebook begins with `profile = None` in its parameters cell and then says, once,
`profile = profiles.get(profile)`. What depends on the profile is chosen in one place, visibly:
`seeds = profile.choose(ci=range(2), lesson=range(10), full=range(30))`.
"""

import os
from dataclasses import dataclass
from typing import Any

NAMES = ("ci", "lesson", "full")
VARIABLE = "KDLIB_PROFILE"


@dataclass(frozen=True)
class Profile:
    """A profile by its name: ci, lesson or full."""

    name: str

    def choose(self, *, ci: Any, lesson: Any, full: Any) -> Any:
        """The value for this profile. All three are asked for, so that none is forgotten."""
        return {"ci": ci, "lesson": lesson, "full": full}[self.name]


def get(profile: str | Profile | None = None) -> Profile:
    """The profile named by the argument, else by the variable KDLIB_PROFILE, else `lesson`.

    Args:
        profile: a name, or a Profile, which is handed back as it is: so a cell `profile = profiles.get(profile)` may
            run twice. None, and an empty KDLIB_PROFILE, count as nothing said.

    Raises:
        ValueError: an unknown name; the message says where it came from.
    """
    if isinstance(profile, Profile):
        return profile
    if profile is not None:
        return _known(profile, "the argument `profile`")
    return _known(os.environ.get(VARIABLE) or "lesson", f"the environment variable {VARIABLE}")


def _known(name: str, origin: str) -> Profile:
    if name not in NAMES:
        raise ValueError(f"unknown profile {name!r} from {origin}; allowed: {', '.join(NAMES)}")
    return Profile(name)
