# %% [markdown]
# # 06 · Compression
#
# **How small does a network become by pruning, low rank, carving and search, and at what price?**
#
# Lesson 05 chose from a shelf of models. Here you make them: you take weights, channels and directions out of the teacher by
# hand, and measure what each cut costs before and after the network is mended. Every network then gets the same number of
# passes over the same images, because most published comparisons differ in just that.
#
# **Objectives.** After this lesson you will be able to
#
# - say what a zero buys, and what it does not;
# - take a channel out of a network with everything that hangs on it;
# - split a layer in two by its singular values;
# - tell inherited weights from an inherited shape, by a random start;
# - put a search beside plans drawn at random;
# - read a table of methods: at which size, after how many passes, mended by whom?
#
# **Prerequisites.** Lesson 05; paired intervals over seeds from lesson 01.
#
# **Time.** About 60 minutes, nearly half of them for four exercises; the cells run in about a minute on 2 cores.

# %% tags=["parameters", "projector"]
profile = None

# %% tags=["projector"]
import ast
import functools
import zlib

import pandas
import torch
import torch_pruning
from torch import nn

from kdlib import data, inference, metrics, teachers
from kdlib.deploy import benchmark, compress, footprint
from kdlib.deploy.statements import stated
from kdlib.experiments import lesson06, lesson06_search
from kdlib.lesson import figures, laboratory, laboratory_networks, plots, profiles, results, widgets
from kdlib.lesson.exercises import check, hint, mine, solution
from kdlib.lesson.predictions import predict

# %% tags=["projector"]
profile = profiles.get(profile)
figures.use_style()
dataset = data.load("fashion-mnist")
teacher, shape = teachers.load("fashion-mnist").network, (1, 28, 28)
judges = dataset.test.take(profile.choose(ci=200, lesson=1000, full=10_000), seed=0)
torch.set_num_threads(1)


def accuracy(network):
    """Right answers on the judges; `compress.finish` is a copy in eval mode, in which masks have become plain weights."""
    return metrics.accuracy(inference.predict_logits(compress.finish(network), judges), judges)


def milliseconds(networks):
    """Of each network for a batch of 32 images, in turn, as lesson 05 measures."""
    rounds = profile.choose(ci=7, lesson=21, full=100)
    return benchmark.latency({name: compress.finish(one) for name, one in networks.items()}, shape, batch_size=32,
                             repeats=rounds, turn=0, clock=benchmark.PROCESSOR_CLOCK)

# %% [markdown]
# ## 1. What does a zero buy?
#
# A network has more weights than it needs. Han et al. (2015) set the smallest to zero and train the others on. With a
# threshold $\theta$ below which the chosen share of all weights lies:
#
# $$m_i = \big[\, |w_i| > \theta \,\big], \qquad w_i \leftarrow m_i \, w_i$$

# %%
zero_prediction = predict(
    "Four of five weights of the teacher become 0, nothing is trained. What share of the images is still right?",
    {"below 30 %": (0, 30), "30 to 60 %": (30, 60), "60 to 80 %": (60, 80), "above 80 %": (80, 100)}, unit="%")
zero_prediction

# %%
by_hand = compress.finish(teacher)
weights = [layer.weight.data for layer in by_hand.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
threshold = torch.cat([weight.abs().flatten() for weight in weights]).quantile(0.8)
for weight in weights:
    weight *= weight.abs() > threshold

sparse = compress.sparsify(teacher, 0.8)  # the library's line
theirs = compress.finish(sparse).state_dict()
differ = sum(int((values != theirs[name]).sum()) for name, values in by_hand.state_dict().items())
timed = milliseconds({"whole": teacher, "sparse": sparse})
packed = [len(zlib.compress(b"".join(w.detach().numpy().tobytes() for w in compress.finish(one).parameters())))
          for one in (teacher, sparse)]
print(f"{compress.zero_share(sparse):.0%} are 0; by hand and by the library {differ} of {sum(w.numel() for w in weights):,} differ")
print(f"time of the whole over that of sparse: {stated(timed, 'whole', 'sparse', widest=0.5).words}, {timed.conditions()}")
print(f"weights packed by zlib: {packed[0] / 1000:,.0f} kB of the whole, {packed[1] / 1000:,.0f} kB of sparse")
zero_prediction.compare(accuracy(sparse))

# %% [markdown]
# **What this says.** A processor multiplies by zero as fast as by any number. The zeros make a file smaller once it is packed,
# nothing else. And they are not free.
#
# ### Exercise: repair a training

# %% exercise="repair_sparse_training"

# %% [markdown]
# Use it: pull what is left of the last layer's weights towards one and a half times their size, with some speed from before.

# %%
last, wanted = compress.finish(sparse).head.weight.detach(), 1.5 * teacher.head.weight.detach()
mend = mine("repair_sparse_training", repair_sparse_training)
pulled = mend(last, last != 0, torch.full_like(last, 0.01), lambda weight: weight - wanted, steps=50, learning_rate=0.1)
for name, weight in {"before": last, "after 50 steps": pulled}.items():
    print(f"{name:15}{(weight == 0).double().mean():4.0%} zeros; those that are left {(weight - wanted)[last != 0].norm():.2f} away")

# %% [markdown]
# ## 2. What hangs on a channel?
#
# To be faster, take out a channel with all that goes with it: what is left is a smaller dense network. *All that goes with it*
# is the work. In the simplest case it is a pair: two convolutions with batch norm and ReLU between them.
#
# ### Exercise: prune a pair of layers

# %% exercise="prune_channel_pair"

# %% [markdown]
# Use it on the first block of the teacher: of its 32 inner channels stay the 16 whose filters have the largest norm.

# %%
prune_pair = mine("prune_channel_pair", prune_channel_pair)
narrow = compress.finish(teacher)
block = narrow.stages[0][0]
keep = block.first[0].weight.flatten(1).norm(dim=1).topk(16).indices.sort().values
block.first[0], block.first[1], block.second[0] = prune_pair(block.first[0], block.first[1], block.second[0], keep)
for name, one in {"whole": teacher, "16 inner channels less": narrow}.items():
    print(f"{name:24}{footprint.parameters(one):8,} parameters, {footprint.multiply_adds(one, shape) / 1e6:4.1f} million "
          f"multiply-adds, {accuracy(one):.1%} right")

# %% [markdown]
# Inside a block a pair is all there is. But a block's *output* is added to its input, and both are read by the next block: who
# takes a channel out of one has to take it out of all. Fang et al. (2023) follow these dependencies through the network's
# graph. Channel 0 of the very first layer takes with it:

# %%
# NBVAL_CHECK_OUTPUT
whole = compress.finish(teacher)
names = {module: name for name, module in whole.named_modules()}
graph = torch_pruning.DependencyGraph().build_dependency(whole, torch.zeros(1, *shape))
group = graph.get_pruning_group(whole.stem[0], torch_pruning.prune_conv_out_channels, [0])
for item in group:
    if item.dep.target.module in names:
        print(f"{'an output' if graph.is_out_channel_pruning_fn(item.dep.handler) else 'an input':10} of "
              f"{names[item.dep.target.module]}")
joined = sum(item.dep.target.module in names for item in group)

# %% [markdown]
# `compress.prune_channels` does this for the whole network, the least important channels first. Now the network is hurt, but how
# much of the hurt are lost weights? Its **batch norms** still subtract the means of the whole network. Let them count anew, over
# 1,000 images, without changing a weight:

# %% tags=["projector"]
batch_norm_prediction = predict(
    "A quarter of all channels is gone. What share of the images is right again after the norms have counted anew?",
    {"below 30 %": (0, 30), "30 to 60 %": (30, 60), "60 to 80 %": (60, 80), "above 80 %": (80, 100)}, unit="%")
batch_norm_prediction

# %% tags=["projector"]
def counted_anew(network):
    """The network with batch norms whose statistics are those of 1,000 images; no weight is changed."""
    images = dataset.train.subset(slice(profile.choose(ci=300, lesson=1000, full=1000)))
    network = compress.finish(network).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
    with torch.no_grad():
        for rows in torch.arange(len(images)).split(100):
            network(images.normalized(rows))
    return network.eval()

# %%
quarter = compress.prune_channels(teacher, 0.25, shape)  # the library's line
print(f"a quarter of the channels gone: {accuracy(quarter):.1%} right at once")
batch_norm_prediction.compare(accuracy(counted_anew(quarter)))

# %% [markdown]
# **What this says.** Much of what a mild cut seems to destroy is not lost: the norms were looking for a network that is no longer
# there. Whoever compares methods "before fine-tuning" compares this, too.
#
# ## 3. How many directions does a layer need?
#
# A convolution's weight, with a row for each output, is a matrix $W$. Its singular values say how much it stretches in which
# direction, and the matrix of rank $r$ that is nearest to it keeps the largest of them (Eckart and Young 1936):
#
# $$W = U S V^\top \approx U_r S_r V_r^\top$$
#
# Read from right to left these are two layers (Zhang et al. 2014): a convolution with only $r$ outputs, and a 1 x 1 one behind it. For $n$
# outputs and $m$ inputs of $k \times k$ numbers they are smaller than the one layer where $r\,(n + m k^2) < n\,m\,k^2$.
#
# ### Exercise: low-rank factors

# %% exercise="low_rank_factors" tags=["projector"]

# %% [markdown]
# Take the largest layer of the teacher: 128 outputs, each from 1,152 numbers. Its full rank is 128.

# %% tags=["projector"]
rank_prediction = predict(
    "Which rank leaves the teacher, untrained since, within one point of what it was?",
    {"4 or less": (0, 5), "8 to 32": (5, 33), "48 to 64": (33, 65), "more": (65, 129)}, unit="of 128")
rank_prediction

# %% tags=["projector"]
factors, path = mine("low_rank_factors", low_rank_factors), "stages.2.0.second.0"
layer = teacher.get_submodule(path)


def at_rank(rank):
    """The teacher with two layers in place of this one."""
    network = compress.finish(teacher)
    split = nn.Sequential(nn.Conv2d(128, rank, 3, padding=1, bias=False), nn.Conv2d(rank, 128, 1, bias=False))
    for part, weight in zip(split, factors(layer.weight.detach(), rank), strict=True):
        part.weight = nn.Parameter(weight)
    network.set_submodule(path, split)
    return network.eval()


ranks = profile.choose(ci=(2, 16, 64), lesson=(1, 2, 4, 8, 16, 32, 64, 96, 128), full=(1, 2, 4, 8, 16, 32, 64, 96, 128))
of_rank = {rank: at_rank(rank) for rank in ranks}
right_at = {rank: accuracy(network) for rank, network in of_rank.items()}
ms_at = milliseconds({str(rank): one for rank, one in of_rank.items()} | {"whole": teacher}).table()["median"]
values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
enough = next((rank for rank in ranks if right_at[rank] > accuracy(teacher) - 0.01), 128)
print(f"two layers are smaller than one up to rank {(128 * 1152 - 1) // (128 + 1152)}")
rank_prediction.compare(enough)

# %% tags=["projector", "figure"]
def draw_rank(figure):
    left, middle, right = figure.subplots(1, 3)
    places = range(1, len(values) + 1)
    left.plot(places, values, color=figures.COLOURS["muted"])
    (kept,) = left.plot([], [], color=figures.COLOURS["student"], linewidth=4)
    middle.plot(ranks, [100 * right_at[rank] for rank in ranks], "o-", color=figures.COLOURS["student"])
    middle.axhline(100 * accuracy(teacher), color=figures.COLOURS["teacher"], linestyle=":")
    right.plot(ranks, [ms_at[str(rank)] for rank in ranks], "o-", color=figures.COLOURS["student"])
    right.axhline(ms_at["whole"], color=figures.COLOURS["teacher"], linestyle=":")
    left.set(xlabel="number", ylabel="singular value", title="kept")
    middle.set(xlabel="rank", ylabel="right answers (%)", ylim=(0, 105), xscale="log")
    middle.set_xticks([rank for rank in ranks if rank != 96], [rank for rank in ranks if rank != 96])
    middle.minorticks_off()
    right.set(xlabel="rank", ylabel="ms for 32 images", ylim=(0, 1.3 * ms_at.max()))
    rings = [axes.plot([], [], "o", markersize=17, fillstyle="none", color="black")[0] for axes in (middle, right)]
    title = middle.set_title("")

    def update(*, rank):
        kept.set_data(places[:rank], values[:rank])
        rings[0].set_data([rank], [100 * right_at[rank]])
        rings[1].set_data([rank], [ms_at[str(rank)]])
        title.set_text(f"rank {rank}: {right_at[rank]:.1%}")
        return [kept, *rings, title]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_rank, {f"rank {rank}": {"rank": rank} for rank in (ranks[1], ranks[-1])}, columns=1, size=(10, 3),
    caption="the largest layer of the teacher at two ranks. Left: its singular values, thick those that are kept. Middle: right "
    "answers, nothing trained; dotted the whole teacher. Right: the time of the whole network.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_rank, rank=list(ranks), size=(10, 3.2), caption="the same with a slider over the rank.")

# %% [markdown]
# In `kdlib` one line does so for every layer, with the smallest rank that keeps a share of the squared singular values $\sigma_i$,
# $\sum_{i \le r} \sigma_i^2 / \sum_i \sigma_i^2$, and leaves layers alone that would not become smaller. Both ways agree:

# %%
split = compress.factorize(teacher, 0.8)  # the library's line
first, second = split.get_submodule(path)
mine_too = [part.flatten(1) for part in factors(layer.weight.detach(), first.out_channels)]
apart = (second.weight.flatten(1) @ first.weight.flatten(1) - mine_too[1] @ mine_too[0]).abs().max() / layer.weight.abs().max()
print(f"rank {first.out_channels}; by hand and by the library apart by {apart:.0e} of the largest weight")

# %% [markdown]
# **What this says.** With an eighth of its rank this layer keeps the network within a point of the whole, without any training. That
# holds for *one* layer, in a block that passes its input on beside it. Every layer cut at once is another matter, since the errors of
# one are the inputs of the next.
#
# ### What does each cut cost?
#
# Each of the three cuts, of the whole network, at five strengths. Right answers are measured at once; with norms that have counted
# anew; and after two passes over 9,000 images with the teacher's soft targets (T = 2, alpha = `0.9`; recorded, five seeds).

# %% tags=["projector"]
ladder = {(method, strength): lesson06.network(method, strength=strength)
          for method, several in lesson06.STRENGTHS.items() for strength in (several if profile.name != "ci" else several[:2])}
at_once = {step: accuracy(network) for step, network in ladder.items()}
anew = {step: accuracy(counted_anew(network)) for step, network in ladder.items()}
times = milliseconds({str(step): network for step, network in ladder.items()} | {"whole": teacher}).table()["median"]
mended = results.read("lesson06-strengths")
work = {step: footprint.multiply_adds(network, shape) / footprint.multiply_adds(teacher, shape) for step, network in ladder.items()}
print(results.provenance("lesson06-strengths"))

# %% tags=["projector", "figure"]
LABELS = {"sparse": "share of zeros", "pruned": "share of channels gone", "low-rank": "squared singular values kept"}
after = mended.groupby(["method", "strength"])["accuracy"].mean()
KINDS = {"at once": (at_once, "muted"), "norms counted anew": (anew, "label"), "after two passes": (after, "student")}
whole_right = accuracy(teacher)


def empty_ladder(figure):
    """Both panels with what does not move; the lines of the three kinds, that of the time, and the rings."""
    left, right = panels = figure.subplots(1, 2)
    lines = {kind: left.plot([], [], "o-", color=figures.COLOURS[role], label=kind)[0] for kind, (_, role) in KINDS.items()}
    time = right.plot([], [], "o-", [], [], ":", color=figures.COLOURS["teacher"])
    rings = [axes.plot([], [], "o", markersize=17, fillstyle="none", color="black")[0] for axes in panels]
    level = left.axhline(100 * whole_right, color=figures.COLOURS["teacher"], linestyle=":", label="whole")
    left.set(ylim=(0, 105), ylabel="right answers (%)")
    right.set(ylim=(0, 1.7 * times.max()), ylabel="ms for 32 images")
    right.legend(handles=[*lines.values(), level], fontsize=9, loc="upper center", ncols=2)
    return panels, lines, time, rings

# %% tags=["projector", "figure"]
def draw_ladder(figure):
    (left, right), lines, time, rings = empty_ladder(figure)
    title = left.set_title("", loc="left")

    def update(*, method, step):
        strengths = [strength for name, strength in ladder if name == method]
        here = strengths[min(step, len(strengths)) - 1]
        for kind, line in lines.items():
            line.set_data(strengths, [100 * KINDS[kind][0][method, strength] for strength in strengths])
        time[0].set_data(strengths, [times[str((method, strength))] for strength in strengths])
        time[1].set_data(strengths, [times["whole"] * work[method, strength] for strength in strengths])
        rings[0].set_data([here], [100 * after[method, here]])
        rings[1].set_data([here], [times[str((method, here))]])
        for axes in (left, right):
            axes.set(xlabel=LABELS[method], xlim=(min(strengths) - 0.05, max(strengths) + 0.05))
        title.set_text(f"{method}, {here:g}: {after[method, here]:.1%} after two passes")
        return [*lines.values(), *time, *rings, title]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_ladder, {f"{method}": {"method": method, "step": 2} for method in lesson06.STRENGTHS}, columns=1, size=(9.5, 3.2),
    caption="three ways to cut, each at several strengths: right answers at once, with norms that have counted anew, and after "
    "two passes with the teacher (mean of five seeds). Right: the time for 32 images; dotted, what it would be if it followed the "
    "multiply-adds. See where the lines fall away from the whole (dotted), and where the time leaves its dotted line. The ring marks one strength.",
)

# %% tags=["projector", "figure"]
widgets.strip(
    draw_ladder, method=list(lesson06.STRENGTHS), step=[1, 2, 3, 4, 5], size=(9.5, 3.6),
    caption="the same with a slider over the method and one over its strength.",
)

# %% [markdown]
# **What this says.** Counting anew brings back most of a mild cut and little of a deep one; two passes repair most of the others,
# too. Then the three differ in what they buy. Zeros keep the most, at the full price in work and time. At about equal
# work, whole channels keep more than low rank does (all with the learning rate of pruning). Which of the two takes less time at
# it, read off the right-hand panels; low rank puts two layers in place of one.
#
# ## 4. Is it the weights, the shape, or the teacher?
#
# **Carving** fills a given small network with channels of the teacher. Xu et al. (2023) take them at even distances; here those
# stay that say most, for channel $c$ with its filter $W_c$ and its batch norm's scale $\gamma_c$ and variance $\sigma_c^2$
#
# $$I_c = |\gamma_c| \, \|W_c\| / \sqrt{\sigma_c^2 + \epsilon}$$
#
# Pruning adds up the squares of *all* weights that hang on a channel, so it keeps others. We prune three quarters of the
# channels, and carve into the shape that is left. Both begin with weights of the teacher. The dull explanation is the
# shape: a network of this shape from a **random start** might learn as much. And so might any other: the `pocket-cnn`, the
# small student of lesson 05, has as many multiply-adds, though more than twice the parameters.

# %%
pruned = compress.prune_channels(teacher, 0.75, shape)
carved = compress.carve(teacher, pruned, shape)  # the library's line
for name, one in {"pruned": pruned, "carved": carved, "pocket-cnn": lesson06.network("pocket-cnn", 0)}.items():
    print(f"{name:11}{footprint.parameters(one):7,} parameters, {footprint.multiply_adds(one, shape) / 1e6:.2f} million "
          f"multiply-adds, right before any training: {accuracy(one):.1%}")

# %% [markdown]
# All four learn from the teacher's soft targets for 9,000 images; the learning rate of each was chosen on validation.

# %% tags=["projector"]
start_prediction = predict(
    "After ten passes: how far is the pruned network ahead of the same network from a random start?",
    {"behind": (None, 0), "up to 1.5 points": (0, 1.5), "1.5 to 4 points": (1.5, 4), "more": (4, None)})
start_prediction

# %% tags=["projector"]
recorded = results.read("lesson06-methods")
right = recorded.set_index(["method", "target", "passes", "seed"])["accuracy"].sort_index()
print(*map(results.provenance, ("lesson06-tuning", "lesson06-edge-tuning", "lesson06-methods")), sep="\n")
for passes in (1, 3, 10, 30):
    leads = {m: metrics.paired_interval(right[m, "teacher", passes], right["random start", "teacher", passes])
             for m in ("pruned", "carved", "pocket-cnn")}
    print(f"after {passes:2} passes, ahead of a random start:", *(f"{m} {plots.points(lead)};" for m, lead in leads.items()))
head_start = metrics.paired_interval(right["pruned", "teacher", 10], right["random start", "teacher", 10])
start_prediction.compare(head_start)

# %% tags=["projector", "figure"]
EFFORTS, ROLES = (1, 3, 10, 30), dict(zip(lesson06.EQUAL, ("teacher", "mix", "muted", "student"), strict=True))
taught = {(method, n): 100 * right[method, "teacher", n] for method in ROLES for n in EFFORTS}
ahead = {(method, n): values - taught["random start", n] for (method, n), values in taught.items()}


def empty_passes(figure):
    """The means over the passes; an empty panel of differences, and its dots."""
    left, gaps = figure.subplots(1, 2)
    for method, role in ROLES.items():
        left.plot(EFFORTS, [taught[method, n].mean() for n in EFFORTS], "o-", color=figures.COLOURS[role], label=method)
    left.set(xscale="log", xlabel="passes over 9,000 images", ylabel="test accuracy (%)")
    left.set_xticks(EFFORTS, EFFORTS)
    left.minorticks_off()
    left.legend(fontsize=9)
    gaps.axhline(0, color=figures.COLOURS["muted"], linewidth=1)
    ends = min(map(min, ahead.values())), max(map(max, ahead.values()))
    gaps.set(xlim=(-0.5, 3.5), ylim=(ends[0] - 0.5, ends[1] + 0.5), ylabel="ahead of random start (points)")
    gaps.set_xticks(range(4), ROLES, fontsize=9)
    return left, gaps, {m: gaps.plot([], [], "o", color=figures.COLOURS[role], alpha=0.6)[0] for m, role in ROLES.items()}

# %% tags=["projector", "figure"]
def draw_passes(figure):
    left, gaps, dots = empty_passes(figure)
    marker, title = left.axvline(1, color="black", linestyle=":"), gaps.set_title("")

    def update(*, passes):
        marker.set_xdata([passes, passes])
        for place, (method, line) in enumerate(dots.items()):
            line.set_data([place] * len(ahead[method, passes]), ahead[method, passes])
        title.set_text(f"after {passes} {'pass' if passes == 1 else 'passes'}")
        return [marker, *dots.values(), title]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_passes, {f"after {passes}": {"passes": passes} for passes in (1, 30)}, columns=1, size=(9.5, 3.2),
    caption="four networks with equal multiply-adds. Left: mean test accuracy over the passes. Right: a dot a seed, the "
    "difference to the random start of that seed.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_passes, passes=list(EFFORTS), size=(9.5, 3.6), caption="the same with a slider over the passes.")

# %% [markdown]
# **What this says.** *Which* weights are inherited matters: after one pass the pruned network is far ahead of the random start, the
# carved one not detectably, though after three it is ahead. By thirty passes half a point is left of the one lead, and nothing that
# shows of the other. So a claim that some way to cut beats training from scratch needs the number of passes beside it. (The rates were chosen at four passes; at
# one, a part of a difference may be the rate's.)
#
# A cut network can be trained on with the labels, or with the soft targets of the whole one. The same ten passes, seed by seed:

# %%
mender_prediction = predict(
    "Ten passes mend the pruned network: how far is the teacher ahead of the labels?",
    {"behind": (None, 0), "up to half a point": (0, 0.5), "half to 1.5 points": (0.5, 1.5), "more": (1.5, None)})
mender_prediction

# %%
gains = {m: metrics.paired_interval(right[m, "teacher", 10], right[m, "labels", 10]) for m in lesson06.EQUAL}
for method, gain in gains.items():
    print(f"{method:13} teacher over labels {plots.points(gain)}")
for method in ("pruned", "pocket-cnn"):
    longer = metrics.paired_interval(right[method, "teacher", 10][:5], right[method, "labels", 30])
    print(f"{method:13} teacher over labels with three times the passes {plots.points(longer)}")
swapped = metrics.paired_interval(right["pruned", "labels", 10], right["random start", "teacher", 10])
more = metrics.paired_interval(right["pruned", "teacher", 10] - right["pruned", "labels", 10],
                               right["random start", "teacher", 10] - right["random start", "labels", 10])
print(f"inherited weights and labels, over a random start and the teacher {plots.points(swapped)}")
print(f"what the teacher's targets add, more to the pruned network than to the random start {plots.points(more)}")
mender_prediction.compare(gains["pruned"])

# %% [markdown]
# **What this says.** The soft targets of the teacher mend every one of the four better than labels do, and by about as much, whether its
# weights came from the teacher or from nowhere. On these 9,000 images as they are, three times the passes gain the labels nothing;
# augmentation and smoothing were not tried, and in lesson 05 more images and views closed the gap. After *ten* passes the teacher is
# worth about as much as a *source of targets* as it is as a *source of weights*, and the two add up. Ten is where that is so: you saw
# how the lead of the weights changes with the passes.
#
# ### Exercise: an experiment of your own
#
# The laboratory has cut networks now; `lab.settings` lists what can be set. `check` judges the design.

# %%
cut = {"pruned": lambda seed: pruned, "carved": lambda seed: carved,
       "random start": functools.partial(laboratory_networks.with_fresh_weights, pruned)}
lab = laboratory.Laboratory(profile, epochs=5, networks=cut)

# %% exercise="my_compression_experiment"

# %%
interval = mine("my_compression_experiment", my_compression_experiment)(lab)
print(lab, f"the difference on the test images: {plots.points(metrics.Interval(*interval))}", sep="\n")

# %% [markdown]
# ## 5. Does a search find better layers than chance?
#
# Which layers should a small student have? A **plan** says for each convolution its channels, kernel and stride, such as
# (32, 3, 2). A **search** proposes plans, trains each for a moment, and proposes more of the kind that did well. Tan et al. (2018)
# weigh accuracy against latency in one reward; ours passes over plans beyond a budget. It is a TPE (Bergstra et al. 2011), which draws where good plans were
# frequent and bad ones rare: with densities $l$ of the good and $g$ of the others, where $l(x) / g(x)$ is large.
#
# The dull explanation: try as many plans *at random* and take the best. So, for ten seeds (recorded): 16 plans each within 2.4 million
# multiply-adds, tried for 4 passes over 3,000 images; the winner then gets the ten passes of section 4. Beside it a plan that nobody
# tried, drawn at random from those near the budget, and the pocket-cnn, made by hand. The TPE begins with ten random proposals, the
# same as its rival's of that seed, so the first plans of both are alike.

# %% tags=["projector"]
search_prediction = predict(
    "On the test images: how far is the winner of the search ahead of the best of as many random plans?",
    {"behind": (None, -0.75), "less than 0.75 points apart": (-0.75, 0.75), "ahead by up to two": (0.75, 2), "more": (2, None)})
search_prediction

# %% [markdown]
# One of each, in small and live:

# %%
few, few_logits = lesson06.answers(profile.choose(ci=64, lesson=500, full=3000))
small = {"multiply_adds": lesson06_search.BUDGET, "students": profile.choose(ci=2, lesson=6, full=12), "seed": 0,
         "epochs": profile.choose(ci=1, lesson=2, full=4)}
for sampler in ("tpe", "random"):
    found = compress.search_student(few_logits, few, dataset.validation, sampler=sampler, **small)  # the library's line
    print(f"{sampler:7}{len(found.trials):3} plans looked at, {small['students']} trained; the best on validation: "
          f"{found.trials['accuracy'].max():.1%} by {found.plan}")

# %% tags=["projector"]
plans = results.read("lesson06-search").set_index(["arm", "seed"]).sort_index()
print(results.provenance("lesson06-search"))
by_search = plans.loc["search"]
for arm in lesson06_search.ARMS:
    mean, against = plots.mean_interval(plans.loc[arm, "accuracy"]), ""
    if arm != "search":
        against = "; search ahead by " + plots.points(metrics.paired_interval(by_search["accuracy"], plans.loc[arm, "accuracy"]))
    print(f"{arm:17}{plots.percent(mean)} with {plans.loc[arm, 'multiply_adds'].mean() / 1e6:.1f} million multiply-adds{against}")
over_chance = metrics.paired_interval(by_search["accuracy"], plans.loc["random, the best", "accuracy"])
search_prediction.compare(over_chance)

# %% tags=["projector", "figure"]
so_far = {arm: 100 * plans.loc[arm, [f"after {n}" for n in range(1, lesson06_search.PLANS + 1)]] for arm in ("search", "random, the best")}
gaps_so_far = so_far["search"] - so_far["random, the best"]
EDGE = 1 + gaps_so_far.abs().to_numpy().max()


def draw_search(figure):
    left, gaps = figure.subplots(1, 2)
    for (arm, table), role in zip(so_far.items(), ("student", "muted"), strict=True):
        plots.band(left, range(1, lesson06_search.PLANS + 1), table.to_numpy().T / 100, colour=figures.COLOURS[role], label=arm)
    left.set(xlabel="plans tried", ylabel="best on validation (%)", xticks=range(2, lesson06_search.PLANS + 1, 2))
    left.legend(fontsize=9, loc="lower right")
    marker, title = left.axvline(1, color="black", linestyle=":"), gaps.set_title("")
    dots, middle = gaps.plot([], [], "o", [], [], "-", color=figures.COLOURS["student"], alpha=0.7)
    gaps.axhline(0, color=figures.COLOURS["muted"], linewidth=1)
    gaps.set(xlim=(-1, 1), xticks=[], ylim=(-EDGE, EDGE), ylabel="search ahead (points)")

    def update(*, plans_tried):
        marker.set_xdata([plans_tried, plans_tried])
        gap = gaps_so_far[f"after {plans_tried}"]
        dots.set_data([0] * len(gap), gap)
        middle.set_data([-0.4, 0.4], [gap.mean()] * 2)
        title.set_text(f"after {plans_tried} plans")
        return [marker, dots, middle, title]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_search, {f"after {count} plans": {"plans_tried": count} for count in (4, lesson06_search.PLANS)}, columns=1, size=(9.5, 3.2),
    caption="a search and as many random plans. Left: the best validation accuracy so far, mean and 95 % interval of ten "
    "searches. Right: a dot a seed, the difference of the two; the line is their mean.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_search, plans_tried=list(range(1, lesson06_search.PLANS + 1)), size=(9.5, 3.6),
              caption="the same with a slider over the number of plans.")

# %% [markdown]
# **What this says.** To try plans is worth points: one that nobody tried is far behind, and may be very bad. That a *search* proposed them
# is not: against as many random plans the interval holds 0, and leaves room for half a point either way. Its winners need fewer
# multiply-adds than the plan made by hand, which cost no trials and is not told apart from them.
#

# %% [markdown]
# ## 6. The table of all
#
# Equal passes for every row, over the same images, with the teacher's soft targets. The **effort** is counted, not timed, so it is
# true on every machine: with $M$ multiply-adds an image, $N$ images and $P$ passes, forwards once and backwards about twice that,
# and the teacher asked once an image,
#
# $$E = 3 \, M_s \, N \, P + M_t \, N$$
#
# For the search its trials are in it, too. The times are those of 32 images, here and now.

# %%
table_prediction = predict(
    "`pruned` and the pocket-cnn have equal multiply-adds. How many times as long does `pruned` take for 32 images?",
    {"less": (None, 0.8), "about as long": (0.8, 1.25), "up to three times": (1.25, 3), "more": (3, None)}, unit="times")
table_prediction

# %% tags=["figure"]
searched = plans.loc["search"].reset_index().assign(method="searched", target="teacher", passes=10)
every = recorded[(recorded["target"] == "teacher") & (recorded["passes"] == 10)]
every = pandas.concat([every, searched], ignore_index=True)
rows = {method: own for method, own in every.groupby("method")}
networks = {method: lesson06.network(method) for method in lesson06.BUILD}
networks["searched"] = lesson06_search.of_plan(ast.literal_eval(searched["plan"][0]), 0)
timed = milliseconds(networks | {"whole": teacher})
now, answers = timed.table()["median"], footprint.multiply_adds(teacher, shape) * 9000  # the teacher is asked once an image
order = sorted(rows, key=lambda method: -rows[method]["accuracy"].mean())

# %% tags=["figure"]
pandas.DataFrame({
    method: {
        "accuracy, over seeds": plots.percent(plots.mean_interval(rows[method]["accuracy"])),
        "seeds": len(rows[method]),
        "parameters": f"{rows[method]['parameters'].mean():,.0f}",
        "million multiply-adds": f"{rows[method]['multiply_adds'].mean() / 1e6:.2f}",
        "effort (10¹² multiply-adds)": f"{(rows[method]['training_multiply_adds'].mean() + answers) / 1e12:.1f}",
        "ms for 32": f"{now[method]:.1f}",
    }
    for method in order
}).T

# %%
longer = stated(timed, "pruned", "pocket-cnn", widest=0.5)
print(f"time of pruned over that of the pocket-cnn: {longer.words}")
longer.words if longer.ratio is None else table_prediction.compare(longer.ends)

# %% [markdown]
# **What this says.** The largest networks are the most accurate: zeros at the teacher's full price in work and time, low rank at half of
# the work. Compare within the others: with a sixteenth of the multiply-adds or less, the way in which they came about moves the accuracy by about a
# point. Their times differ more, though their work does not: `pruned` has more layers, and larger maps, than the pocket-cnn.
#
# You met such a table in lesson 05, with all images and in files. There the pocket-cnn is *ahead* of pruned and carved after ten passes: equal
# passes were not equal tuning, since the shelf gave the cut networks a fifth of the learning rate that is best here. An order of
# methods hangs on such things; the shelf is for choosing goods.
#
# ## Summary
#
# - A zero buys bytes once a file is packed, and no time. A channel buys time, with all that hangs on it.
# - Much of what a mild cut seems to destroy are batch norms that look for a network which is no longer there.
# - A layer may need few of its directions; two thin layers for a thick one save less time than multiply-adds.
# - Inherited weights can be a head start; it melts with the passes. Compare at equal passes and equal tuning, and say how many.
# - A cut network is mended better by the whole one than by labels of the same few images, however many passes these get.
# - A search is worth what it is ahead of as many plans drawn at random.
# - Networks of equal multiply-adds take unequal time.
#
# ### What is honest here, and what is not
#
# - One teacher, one kind of images, and small networks: nothing here says how ResNet-50 prunes on ImageNet.
# - The learning rate of each method of equal size was chosen on validation at four passes with three seeds, and used at every
#   number of passes. `sparse` and `low-rank` took the rate of `pruned`, and have five seeds; so have all rows at 30 passes.
# - The learning rate of the search's students was chosen for the pocket-cnn. Whether inherited weights help by what they *know*, or
#   only by their size, would need the same weights shuffled: not tried.
# - Pruned and carved networks begin with the same weights for every seed: their intervals cover the order of the images and
#   nothing else. Those of random starts cover the weights, too.
# - The search was given 16 plans of a few seconds each. With hundreds of plans, or a space in which most plans are bad, it
#   may well be ahead.
# - The teacher learned from all 60,000 images, the 9,000 among them, and its own training is in nobody's effort.
# - Times are of eager torch with 32 images, on this machine, now. Lesson 05 measures files, and single images.
#
# ## Further
#
# ### What else goes by these names
#
# Pruning in steps, with training between them, keeps more than one cut of the same size (Han et al. 2015): call `sparsify`
# again on what was trained. `nn:m` sparsity, two zeros in every four weights, is the one kind of single zeros that some GPUs
# run faster. And all of these go with 8 bits: `compress.quantize` takes the exported file of any of them.
#
# ## Glossary
#
# - **Sparsity**: the share of weights that are zero. **Mask**: which weights stay.
# - **Structured pruning**: taking out whole channels, with everything that depends on them.
# - **Rank**: how many directions a matrix has; **singular values**: how much it stretches along each.
# - **Carving**: filling a small network with the best channels of a large one.
# - **Random start**: the control of inherited weights: the same form, fresh weights.
# - **Effort**: here the multiply-adds of a training, counted.
#
# ## References
#
# - S. Han, J. Pool, J. Tran, W. J. Dally: Learning both Weights and Connections for Efficient Neural Networks. 2015,
#   arXiv 1506.02626.
# - G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang: DepGraph: Towards Any Structural Pruning. 2023, arXiv 2301.12900.
# - C. Eckart, G. Young: The Approximation of One Matrix by Another of Lower Rank. 1936, Psychometrika 1.
# - X. Zhang, J. Zou, X. Ming, K. He, J. Sun: Efficient and Accurate Approximations of Nonlinear Convolutional Networks. 2014,
#   arXiv 1411.4229.
# - Z. Xu, Y. Chen, K. Vishniakov, Y. Yin, Z. Shen, T. Darrell, L. Liu, Z. Liu: Initializing Models with Larger Ones. 2023,
#   arXiv 2311.18823.
# - J. Bergstra, R. Bardenet, Y. Bengio, B. Kégl: Algorithms for Hyper-Parameter Optimization. 2011, NeurIPS 24.
# - M. Tan et al.: MnasNet: Platform-Aware Neural Architecture Search for Mobile. 2018, arXiv 1807.11626.

# %%
# What this lesson claims, checked; times where they were stated, in `lesson` and `full`.
assert differ < 20 and round(compress.zero_share(sparse), 3) == 0.8 and packed[1] < 0.6 * packed[0]
assert accuracy(sparse) < 0.5 < accuracy(counted_anew(quarter)) and joined == 7 and apart < 1e-3
lead = {(m, n): metrics.paired_interval(right[m, "teacher", n], right["random start", "teacher", n])
        for m in ("pruned", "carved") for n in EFFORTS}
assert lead["pruned", 1].low > lead["pruned", 10].high > lead["pruned", 10].low > 0 < lead["pruned", 30].low
assert lead["carved", 1].low < 0 < lead["carved", 3].low and lead["carved", 30].low < 0 < lead["carved", 30].high
assert (pulled == 0).sum() >= (last == 0).sum() and abs(swapped.mean) < 0.005 > abs(more.mean)
assert over_chance.low < 0 < over_chance.high
assert metrics.paired_interval(by_search["accuracy"], plans.loc["random, one", "accuracy"]).low > 0
assert all(gain.low > 0 for gain in gains.values()), "the teacher mends better than the labels"
assert after["pruned", 0.25] > after["low-rank", 0.9] and after["pruned", 0.5] > after["low-rank", 0.6], "at about equal work"
if profile.name != "ci":
    assert enough <= 16
    margins = [(stated(timed, "whole", "sparse", widest=0.5), 0.7, 1.4), (longer, 1.1, 4)]
    assert all(found.ratio is None or low < found.ratio.median < high for found, low, high in margins)
