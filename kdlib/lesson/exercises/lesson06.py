"""Exercises of lesson 06: a convolution of low rank, two layers that lose channels, a sparse training to repair.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import ChangedInput, is_unfinished


class WrongForm(Exception):
    """Raised by a probe for a result that cannot be used at all."""


def _numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------ low rank


def _weights():
    # A wide matrix, a square one, a tall one; the last rank is the full one.
    shapes = [(6, 3, 3, 3), (9, 1, 3, 3), (8, 5, 1, 1), (4, 3, 3, 3)]
    return [(_numbers(seed, *shape), rank) for seed, (shape, rank) in enumerate(zip(shapes, [2, 4, 3, 4], strict=True))]


def _what_the_factors_do(function, weight, rank):
    """Probe: the shapes of the factors, and their product, which all ways to share out the singular values have."""
    factors = function(weight, rank)
    if is_unfinished(factors):
        return factors
    if not _are(factors, torch.Tensor, torch.Tensor):
        raise WrongForm
    first, second = (factor.detach().double() for factor in factors)
    fit = first.shape == (rank, *weight.shape[1:]) and second.shape == (len(weight), rank, 1, 1)
    unknown = torch.full_like(weight.flatten(1), torch.nan)
    return {
        "first weight": torch.zeros_like(first),  # for the sake of its shape: its numbers are free
        "second weight": torch.zeros_like(second),
        "product of the two": second.flatten(1) @ first.flatten(1) if fit else unknown,
    }


def _are(parts, *kinds):
    if not isinstance(parts, (tuple, list, nn.Sequential)) or len(parts) != len(kinds):
        return False
    return all(map(isinstance, parts, kinds))


def _svd(weight):
    return torch.linalg.svd(weight.flatten(1), full_matrices=False)


def _factors(w, rank, *, of=_svd, power=1.0, smallest=False, transposed=False):
    """Right, but for the decomposition, the power of S, the singular values taken, or a reshape that comes early."""
    left, values, right = of(w)
    taken = torch.arange(len(values))[-rank:] if smallest else torch.arange(rank)
    rows = values[taken, None].pow(power) * right[taken]
    return (rows.T if transposed else rows).reshape(rank, *w.shape[1:]), left[:, taken, None, None]


def _untransposed(w, *, full_matrices):
    left, values, right = torch.linalg.svd(w.flatten(1), full_matrices=full_matrices)
    return left, values, right.T


def _zeroed(w, rank):
    left, values, right = _svd(w)
    values = torch.where(torch.arange(len(values)) < rank, values, 0)
    return (values[:, None] * right).reshape(-1, *w.shape[1:]), left[:, :, None, None]


@exercise(
    cases=_weights,
    probe=_what_the_factors_do,
    hints=[
        """First make the weight a matrix, one row an output. What does `torch.linalg.svd(matrix, full_matrices=False)`
        return, in which order, and what shapes do its three parts have?""",
        """The first `rank` columns of U, singular values, and rows of V^T (which is what torch returns third) are those
        that count. Each factor gets the root of the singular values; then it gets the shape of its convolution.""",
        """`first = (values[:rank].sqrt()[:, None] * right[:rank]).reshape(rank, *weight.shape[1:])` and
        `second = (left[:, :rank] * values[:rank].sqrt()).reshape(len(weight), rank, 1, 1)`.""",
    ],
    mistakes={
        "it does not return two tensors, (first, second)":
            lambda w, rank: _svd(w),
        "the two are exchanged: first comes the k x k convolution with `rank` outputs, second the 1x1":
            lambda w, rank: _factors(w, rank)[::-1],
        "two matrices come back; the weights of convolutions have four axes: reshape them":
            lambda w, rank: tuple(factor.flatten(1) for factor in _factors(w, rank)),
        "the small singular values are set to 0, but the layers are as wide as before: leave them out":
            _zeroed,
        "the smallest singular values are kept; those that torch gives first are the largest":
            lambda w, rank: _factors(w, rank, smallest=True),
        "the singular values are left out: the product is U V^T, without S":
            lambda w, rank: _factors(w, rank, power=0),
        "the singular values count twice: each of the factors has them all; give each their root":
            lambda w, rank: _factors(w, rank, power=2),
        "the product has the root of the singular values only: the other factor needs the root too":
            lambda w, rank: _factors(w, rank, power=0.5),
        "torch.linalg.svd returns V^T and not V: take its first rows, and do not transpose it":
            lambda w, rank: _factors(w, rank, of=lambda w: _untransposed(w, full_matrices=False)),
        "torch.linalg.svd returns V^T and not V: take its first rows, and do not transpose the square matrix":
            lambda w, rank: _factors(w, rank, of=lambda w: _untransposed(w, full_matrices=True)),
        "V is reshaped before it is transposed: its columns, not its rows, belong to the singular values":
            lambda w, rank: _factors(w, rank, transposed=True),
    },
)  # fmt: skip
def low_rank_factors(weight, rank):
    """A convolution as two small ones. The matrix W = weight.flatten(1), (outputs, in_channels * k * k), is U S V^T,
    the singular values in S in descending order; with the `rank` largest of them, W_r = U_r S_r V_r^T.

    weight: (outputs, in_channels, k, k). Returns the weights of the two convolutions in the order in which they run:
    first (rank, in_channels, k, k) and second (outputs, rank, 1, 1), for which
    second.flatten(1) @ first.flatten(1) = W_r. The usual choice: S_r^1/2 V_r^T and U_r S_r^1/2.
    """
    # --- your code
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    root = values[:rank].sqrt()
    first = (root[:, None] * right[:rank]).reshape(rank, *weight.shape[1:])
    second = (left[:, :rank] * root).reshape(len(weight), rank, 1, 1)
    return first, second
    # --- end


# ------------------------------------------------------------------------------------ channels that go


@dataclass(frozen=True)
class Layer:
    """A layer to be built: a case of these can be copied, compared and shown in a message."""

    kind: type
    widths: tuple
    settings: tuple = ()

    def __repr__(self) -> str:
        settings = [*map(str, self.widths), *(f"{name}={value}" for name, value in self.settings)]
        return f"{self.kind.__name__}({', '.join(settings)})"

    def build(self):
        return self.kind(*self.widths, **dict(self.settings))


def _convolution(*widths, **settings):
    return Layer(nn.Conv2d, widths, tuple(settings.items()))


def _norm(*widths, **settings):
    return Layer(nn.BatchNorm2d, widths, tuple(settings.items()))


def _pairs():
    # The second has more outputs than the first, so that its weight can be cut along the wrong axis.
    return [
        (_convolution(3, 6, 3, stride=2, padding=1, bias=False), _norm(6, eps=0.1),
         _convolution(6, 7, 3, padding=1), torch.tensor([1, 2, 4, 5])),
        (_convolution(2, 5, 1, bias=False), _norm(5),
         _convolution(5, 8, 3, stride=2, bias=False), torch.tensor([4, 0])),
        (_convolution(1, 4, 5, padding=2, bias=False), _norm(4),
         _convolution(4, 6, 1), torch.tensor([3])),
    ]  # fmt: skip


def _what_the_layers_do(function, *case):
    """Probe: the widths of the new layers, what they compute, and what they have in common with the old ones."""
    *layers, keep = case
    torch.manual_seed(0)
    first, norm, second = old = [layer.build().eval() for layer in layers]
    for numbers, low, high in [(norm.weight, 0.5, 2), (norm.running_mean, -1, 1), (norm.running_var, 0.2, 2)]:
        nn.init.uniform_(numbers, low, high)
    nn.init.uniform_(norm.bias, 0.5, 1.5)  # positive, so that the ReLU silences no channel
    before = copy.deepcopy(old)
    images = torch.randn(2, first.in_channels, 9, 9)  # now: layers that the function makes draw random numbers too
    new = function(first, norm, second, keep)
    if is_unfinished(new):
        return new
    if not _are(new, nn.Conv2d, nn.BatchNorm2d, nn.Conv2d):
        raise WrongForm
    if [*map(_tensors, old)] != [*map(_tensors, before)]:
        raise ChangedInput
    shapes = [before[0].weight[keep].shape, keep.shape, before[2].weight[:, keep].shape]
    stay = torch.zeros(len(before[0].weight)).index_fill(0, keep, 1)
    with torch.no_grad():
        meant = _run(before, images, stay[:, None, None])
        fit = [layer.weight.shape for layer in new] == shapes and new[1].running_mean.shape == keep.shape
        output = _run(new, images) if fit else torch.full_like(meant, torch.nan)
    right = output.shape == meant.shape and torch.allclose(output, meant, atol=1e-4)
    bias = new[2].bias
    return {
        "weight of the new first": torch.zeros_like(new[0].weight),  # for the sake of its shape
        "weight of the new norm": torch.zeros_like(new[1].weight),
        "running mean of the new norm": torch.zeros_like(new[1].running_mean),
        "weight of the new second": torch.zeros_like(new[2].weight),
        "bias of the new second": torch.zeros(len(before[2].weight)) if bias is None else bias,
        # Said of right layers only: what is shared by wrong ones must not hide their mistake.
        "number of tensors shared with the layers that were given": len(_memory(new) & _memory(old)) if right else 0,
        "result of the three new layers": output,
    }


def _tensors(layer):
    return {name: tensor.tolist() for name, tensor in layer.state_dict().items()}


def _memory(layers):
    return {tensor.untyped_storage().data_ptr() for layer in layers for tensor in layer.state_dict().values()}


def _run(layers, images, stay=1):
    first, norm, second = (layer.eval() for layer in layers)
    return second(norm(first(images)).relu() * stay)


def _narrowed(first, norm, second, keep, *, inputs=None, eps=None):
    """Right, but for the inputs of the second that stay and for eps."""
    f, n, s = (copy.deepcopy(layer) for layer in (first, norm, second))
    f.weight = nn.Parameter(first.weight.data[keep])
    for name in ("weight", "bias"):
        setattr(n, name, nn.Parameter(getattr(norm, name).data[keep]))
    for name in ("running_mean", "running_var"):
        setattr(n, name, getattr(norm, name)[keep])
    n.eps = eps or norm.eps
    s.weight = nn.Parameter(second.weight.data[:, keep if inputs is None else inputs])
    return f, n, s


def _changed(change):
    """A mistake: the right layers, of which `change(first, norm, second)` then spoils something."""

    def mistaken(first, norm, second, keep):
        layers = _narrowed(first, norm, second, keep)
        with torch.no_grad():
            change(*layers)
        return layers

    return mistaken


def _replaced(place, replacement):
    """A mistake: the right layers but for one, `replacement(first, norm, second, keep)`."""

    def mistaken(*given):
        layers = [*_narrowed(*given)]
        layers[place] = replacement(*given)
        return layers

    return mistaken


def _cut_along_the_outputs(first, norm, second, keep):
    cut = copy.deepcopy(second)
    cut.weight = nn.Parameter(second.weight.data[keep])
    cut.bias = None if second.bias is None else nn.Parameter(second.bias.data[keep])
    return cut


def _forget_geometry(first, norm, second):
    for layer in (first, second):
        layer.stride, layer.padding = (1, 1), (0, 0)


def _affine_only(first, norm, second):
    norm.running_mean.zero_()
    norm.running_var.fill_(1)


def _statistics_only(first, norm, second):
    norm.weight.fill_(1)
    norm.bias.zero_()


@exercise(
    cases=_pairs,
    probe=_what_the_layers_do,
    hints=[
        """Which numbers belong to one channel between the two convolutions? Its filter in `first`, what `norm` keeps of
        it (four numbers), and the slice of the weights of `second` that reads it.""",
        """Copies keep stride, padding, eps and biases: `copy.deepcopy(first)`. Then give each copy what stays of its
        tensors, along the right axis: a convolution's weight is (outputs, inputs, height, width).""",
        """`first.weight = nn.Parameter(first.weight.data[keep])` on the copy; in `norm` weight, bias, running_mean and
        running_var, each `[keep]`; `second.weight = nn.Parameter(second.weight.data[:, keep])`.""",
    ],
    mistakes={
        "it does not return a convolution, a norm and a convolution: (first, norm, second)":
            lambda f, n, s, keep: _narrowed(f, n, s, keep)[:2],
        "the channels are only set to 0: the layers are as wide, and as slow, as they were":
            lambda *given: [copy.deepcopy(layer) for layer in given[:3]],
        "the second convolution still reads all channels: it must lose the inputs that are gone":
            _replaced(2, lambda f, n, s, keep: copy.deepcopy(s)),
        "the second convolution lost outputs; it is to lose inputs, the second axis of its weight":
            _replaced(2, _cut_along_the_outputs),
        "the norm still has all channels":
            _replaced(1, lambda f, n, s, keep: copy.deepcopy(n)),
        "the first len(keep) channels stay, and not those that `keep` names":
            lambda f, n, s, keep: _narrowed(f, n, s, torch.arange(len(keep))),
        "the second convolution keeps its first len(keep) inputs, and not those that `keep` names":
            lambda f, n, s, keep: _narrowed(f, n, s, keep, inputs=slice(len(keep))),
        "the norm's running mean and variance are forgotten: a new norm has 0 and 1":
            _changed(_affine_only),
        "the norm's weight and bias are forgotten: a new norm has 1 and 0":
            _changed(_statistics_only),
        "the norm is new altogether: carry over weight, bias, running_mean and running_var":
            _changed(lambda f, n, s: (_affine_only(f, n, s), _statistics_only(f, n, s))),
        "the norm's eps is not carried over: a new norm has 1e-5":
            lambda *given: _narrowed(*given, eps=1e-5),
        "stride and padding are lost: a new convolution has stride 1 and no padding unless told":
            _changed(_forget_geometry),
        "the bias of the second convolution is lost":
            _changed(lambda f, n, s: setattr(s, "bias", None)),
    },
)  # fmt: skip
def prune_channel_pair(first, norm, second, keep):
    """Take channels out of second(relu(norm(first(images)))): new layers that no longer have them, and compute, in
    eval mode, what these three would with every channel behind the ReLU set to 0 that is not in `keep`.

    first: an nn.Conv2d without bias; norm: its nn.BatchNorm2d; second: an nn.Conv2d, with or without a bias (no
    groups); keep: a LongTensor of channel numbers. Returns (first, norm, second); those given stay as they are.
    """
    # --- your code
    first, norm, second = copy.deepcopy((first, norm, second))
    first.weight = nn.Parameter(first.weight.data[keep])
    norm.weight, norm.bias = nn.Parameter(norm.weight.data[keep]), nn.Parameter(norm.bias.data[keep])
    norm.running_mean, norm.running_var = norm.running_mean[keep], norm.running_var[keep]
    second.weight = nn.Parameter(second.weight.data[:, keep])
    first.out_channels = norm.num_features = second.in_channels = len(keep)
    return first, norm, second
    # --- end
