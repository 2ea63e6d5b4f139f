"""Losses on features, which layers to take them from, and how to get them out of a network.

The losses are pure functions of a batch, or modules where they train something.  All of them
- take the student's features first, and return a scalar;
- send gradients to the student only: the teacher's features are detached;
- compute in float32 where the features are bfloat16 or float16, and in float64 where they are float64, also
  inside autocast;
- are finite, with finite gradients, for zero rows, equal features, a batch of one, one channel, and features
  up to 1e15 in size (a gradient has the features' dtype, of which float16 ends at 65504);
- raise ValueError with both shapes where shapes do not fit, and say what to use instead.

Features are maps (batch, channels, height, width) or vectors (batch, channels), and `capture` returns them so
whatever the architecture; `to_map` turns tokens and channels-last maps that come from elsewhere.  Reductions
are means wherever a paper's sum would tie the weight to the size of a batch, a layer or a map.  Each
docstring says what is zero, what is comparable, and the factors to the paper and to the code the literature
compares with (RepDistiller, its weights next to a cross-entropy of weight 1).

A loss is of one pair of layers; losses of several layers are added. `FeatureTerm` makes one a term of
`kdlib.training.distill`.
"""

from kdlib.features import (
    capturing,
    channels,
    information,
    layers,
    maps,
    relations,
    shapes,
    similarity,
    terms,
    weighted,
)
from kdlib.features.capturing import *
from kdlib.features.channels import *
from kdlib.features.information import *
from kdlib.features.layers import *
from kdlib.features.maps import *
from kdlib.features.relations import *
from kdlib.features.shapes import *
from kdlib.features.similarity import *
from kdlib.features.terms import *
from kdlib.features.weighted import *

# What each file names is what the package offers, so that a new loss touches one file.
__all__ = sorted(
    name
    for module in (capturing, channels, information, layers, maps, relations, shapes, similarity, terms, weighted)
    for name in module.__all__
)
