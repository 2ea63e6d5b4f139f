"""Every test runs with the shape annotations of kdlib checked by beartype."""

from jaxtyping import install_import_hook

install_import_hook("kdlib", "beartype.beartype")
