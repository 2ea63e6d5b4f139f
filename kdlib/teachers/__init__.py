"""Teachers: trained ones that ship with the package, pretrained ones of others, and the logits of any, computed once.

`freezing` (a network as a teacher), `combining` (several as one), `shelf` (those that ship, and the user's own),
`zoo` with `weights`, `last_layers` and `timm_networks` (networks that others have pretrained), `answers` (the logits).
"""

from kdlib.teachers.answers import cached_logits
from kdlib.teachers.combining import COMBINATIONS, CombinedTeacher, combine, combined_logits
from kdlib.teachers.freezing import FrozenTeacher, freeze
from kdlib.teachers.last_layers import last_layer
from kdlib.teachers.shelf import available, file_name, load, manifest, recorded_name, user_folder
from kdlib.teachers.zoo import pretrained

__all__ = [
    "COMBINATIONS", "CombinedTeacher", "FrozenTeacher", "available", "cached_logits", "combine", "combined_logits",
    "file_name", "freeze", "last_layer", "load", "manifest", "pretrained", "recorded_name", "user_folder",
]  # fmt: skip
