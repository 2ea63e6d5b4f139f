"""The course as pages that need no kernel, no server and no network."""

from kdlib.site.building import build

__all__ = ["build"]
