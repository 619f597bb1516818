"""What a chat began with, to go back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loopserve_cli.config import SamplingOptions
from loopserve_cli.profile import Profile


@dataclass(frozen=True, slots=True)
class InitialSettings:
    """The settings as the command line and the files had them.

    `others` are those that are neither sampling nor of the profile, as `/set` writes them.
    """

    sampling: SamplingOptions
    profile: Profile
    others: Mapping[str, str]
