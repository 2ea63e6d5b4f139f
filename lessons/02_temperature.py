# %% [markdown]
# # 02 · Temperature
#
# **What does the temperature change in what a student learns, and which one should you take?**
#
# Distillation divides logits by a temperature, and multiplies a loss by its square. In this lesson you measure how soft
# that makes a target, derive the gradient that a student gets from it, train a student with what you wrote, and then see
# students over a range of temperatures far wider than is usual.
#
# **Objectives.** After this lesson you will be able to
#
# - say what a temperature does to a prediction, and measure it in nats;
# - read the tree of classes that a teacher has in mind;
# - derive the gradient of the distill term, and say what the factor $T^2$ does to it;
# - say what remains of distillation when the temperature grows without bound;
# - say which part of a soft target a student profits from, and show it by an experiment;
# - choose a temperature, and say how much the choice matters.
#
# **Prerequisites.** Lesson 01; derivatives of the softmax.
#
# **Time.** About 65 minutes of reading and exercises; the cells run in under 3 minutes on 2 cores.

# %% tags=["parameters", "projector"]
profile = None

# %% tags=["projector"]
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from kdlib import data, inference, metrics, models, teachers, training
from kdlib.experiments import lesson02
from kdlib.lesson import figures, plots, profiles, results, widgets
from kdlib.lesson.exercises import check, hint, mine, solution
from kdlib.lesson.laboratory import Laboratory
from kdlib.lesson.predictions import predict
from kdlib.sweeps import map_cells

profile = profiles.get(profile)
figures.use_style()

# %% [markdown]
# ## 1. What does the temperature do to one prediction?
#
# A teacher's logits $v$ become a *soft target* by
#
# $$p_k = \frac{e^{v_k / T}}{\sum_j e^{v_j / T}}$$
#
# At the temperature $T = 1$ this is the teacher's prediction. We look at training images, because a student learns
# from the teacher's outputs on those: three shirts, picked by rules. For the *clear* one the teacher is surest of the
# label, for the *torn* one it is right and least sure, for the *disputed* one it is surest of something else.

# %% tags=["projector"]
# NBVAL_CHECK_OUTPUT
dataset = data.load("fashion-mnist")
train, classes = dataset.train, dataset.classes
teacher = teachers.load("fashion-mnist")
logits = teachers.cached_logits(teacher, train)
print(f"the teacher's logits on {len(logits):,} training images, {logits.shape[1]} classes")

# %% tags=["projector"]
confidence, predicted = logits.softmax(dim=1).max(dim=1)
shirt, agrees = train.labels == classes.index("Shirt"), predicted == train.labels
picked = {
    "clear": torch.where(shirt & agrees, confidence, 0).argmax().item(),
    "torn": torch.where(shirt & agrees, confidence, 1).argmin().item(),
    "disputed": torch.where(shirt & ~agrees, confidence, 0).argmax().item(),
}
rows = list(picked.values())
for name, row in picked.items():
    print(f"{name:9} label {classes[train.labels[row]]}, teacher {classes[predicted[row]]}")

# %% [markdown]
# How soft a target is, its *entropy* says, in *nats* (units of the natural logarithm):
#
# $$H = -\sum_k p_k \log p_k$$
#
# It is zero where one class has everything, and $\log 10 \approx 2.3$ where all ten have the same.

# %%
softness = predict(
    "At T = 1 the teacher is all but certain of the clear shirt: its entropy is next to zero. And at T = 8?",
    {"still below 0.4": (0, 0.4), "0.4 to 1.2": (0.4, 1.2), "above 1.2, more than half of what is possible": (1.2, 2.31)},
    unit="nats",
)
softness

# %% tags=["projector", "figure"]
widgets.temperature_hero(
    train.images[rows], logits[rows], train.labels[rows], classes, names=[*picked], temperature=1, temperatures=(0.25, 100),
    caption="logits, label and soft target of one image, and its entropy. Move T from a quarter to a hundred: from a "
    "decision, over a comparison, to nothing.",
)

# %% tags=["figure"]
with figures.style():
    figure = Figure(figsize=(9.5, 4.8))
    grid = figure.subplots(3, 4, width_ratios=[1, 1.4, 1.4, 1.4])
    for (name, row), (picture, *panels) in zip(picked.items(), grid, strict=True):
        picture.imshow(train.images[row, 0], cmap="gray_r")
        picture.axis("off")
        picture.set_title(name)
        for T, axes in zip((1, 4, 16), panels, strict=True):
            axes.barh(range(10), (logits[row] / T).softmax(dim=0), color=figures.COLOURS["teacher"])
            axes.plot(0.97, train.labels[row], "D", color=figures.COLOURS["label"], markersize=7)
            axes.set(xlim=(0, 1.03), ylim=(9.6, -0.6), title=f"T = {T}" if name == "clear" else "")
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if name == "disputed" else [])
            axes.set_xlabel("probability" if name == "disputed" else "")
            axes.set_yticks(range(10), classes if T == 1 else [], fontsize=8.5)
figures.show(figure, "soft targets of the three shirts (bars) with their label (diamond). The order of the classes never "
             "changes. At T = 1 the clear shirt shows one class, at T = 4 and 16 what it resembles.")

# %% [markdown]
# ### Exercise: the entropy of a soft target

# %% exercise="softened_entropy"

# %% [markdown]
# From here on the cells compute with *your* function, as soon as it is right.

# %%
my_entropy = mine("softened_entropy", softened_entropy)
for T in (1.0, 4.0, 8.0, 16.0):
    entropy = torch.as_tensor(my_entropy(logits[rows], T))
    print(f"T = {T:2g}:  ", ",  ".join(f"{name} {nats:.3f} nats" for name, nats in zip(picked, entropy, strict=True)))
softness.compare(my_entropy(logits[rows], 8.0)[0].item())

# %% tags=["figure"]
T_grid = np.geomspace(0.25, 100, 80)
curves = [torch.as_tensor(my_entropy(logits[rows], float(T))) for T in T_grid]
with figures.style():
    figure = Figure(figsize=(6.5, 3))
    axes = figure.subplots()
    styles = zip(picked, ("student", "mix", "other"), ("-", "--", ":"), strict=True)
    for (name, colour, line), heights in zip(styles, torch.stack(curves, dim=1), strict=True):
        axes.semilogx(T_grid, heights, line, color=figures.COLOURS[colour], label=name)
    axes.axhline(np.log(10), color=figures.COLOURS["muted"], linewidth=1)
    axes.set(xlabel="temperature T", ylabel="entropy (nats)", xticks=[1, 10, 100], xticklabels=["1", "10", "100"])
    axes.legend(loc="lower right")
figures.show(figure, "entropy of the three soft targets over T; the line is log 10. What is sure stays sure for a while, "
             "then all become alike.")

# %% [markdown]
# **What this says.** A temperature above one adds no knowledge: the order of the classes stays. It makes the small
# probabilities large enough to count, until at last all are alike.

# %% [markdown]
# ## 2. Which classes does the teacher take for relatives?
#
# What stands in a soft target beside the first choice is often called *dark knowledge*. Here it is as a table: each row
# is the mean soft target of the images of one class. From it we build a tree: classes that give each other much
# probability are near,
#
# $$d_{ab} = -\log \tfrac{1}{2} (\bar p_{ab} + \bar p_{ba})$$
#
# ($\bar p_{ab}$: what images of class $a$ give to class $b$), and the nearest are joined first. The sets of classes that
# it joins on the way we call *families*; ten classes have eight.

# %%
kin = predict(
    "We build a tree at each of 15 temperatures from 0.5 to 64. How many of the families at T = 4 are in every one of them?",
    {"two or fewer": (0, 3), "three to five": (3, 6), "six or more": (6, 9)}, unit="of 8 families",
)
kin

# %% tags=["projector"]
T_trees = [round(float(T), 2) for T in np.geomspace(0.5, 64, 15)]
tables = {T: lesson02.class_table((logits / T).softmax(dim=1), train.labels) for T in T_trees}
trees = {T: lesson02.class_tree(table) for T, table in tables.items()}
families = {T: lesson02.families(tree) for T, tree in trees.items()}
everywhere = set.intersection(*families.values())

# %% tags=["projector", "figure"]
from matplotlib.collections import LineCollection
from scipy.cluster import hierarchy

order = hierarchy.leaves_list(trees[4.0])


def draw_classes(figure):
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    picture = left.imshow(np.zeros((10, 10)), vmin=-4, vmax=0)
    left.set_xticks(range(10), [classes[k] for k in order], rotation=55, ha="right")
    left.set_yticks(range(10), [classes[k] for k in order])
    scale = figure.colorbar(picture, ax=left, ticks=[-4, -3, -2, -1, 0], shrink=0.9)
    scale.ax.set_yticklabels(["≤ 0.0001", "0.001", "0.01", "0.1", "1"])
    tree_drawing = right.add_collection(LineCollection([], colors=figures.COLOURS["teacher"], linewidths=2))
    leaves = [right.text(-0.2, 5 + 10 * place, "", ha="right", va="center", fontsize=11) for place in range(10)]
    right.set(xlim=(-5.2, 12), ylim=(100, 0), xlabel="distance (nats)", yticks=[], xticks=range(0, 13, 2))
    right.spines["left"].set_visible(False)
    return lambda *, temperature: show_tree(temperature, picture, tree_drawing, leaves)


# %% tags=["projector", "figure"]
def show_tree(temperature, picture, tree_drawing, leaves):
    picture.set_data(tables[temperature][order][:, order].clamp(min=1e-4).log10())
    tree = hierarchy.dendrogram(trees[temperature], no_plot=True)
    tree_drawing.set_segments([np.column_stack(pair) for pair in zip(tree["dcoord"], tree["icoord"], strict=True)])
    for leaf, label in zip(leaves, tree["leaves"], strict=True):
        leaf.set_text(classes[label])
    return [picture, tree_drawing, leaves]


widgets.twin(
    draw_classes, [{"temperature": T} for T in (1.0, 8.0)], columns=1, size=(9.5, 3.7),
    caption="left: mean soft target of each class (rows), on a logarithmic scale; right: the tree that follows from it. "
    "A higher T pulls the tree together; shoes keep to shoes and tops to tops.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_classes, temperature=T_trees, size=(11, 4.3),
              caption="the same over the temperature. All distances change; watch who stays near whom.")

# %%
for T in T_trees[::3]:
    beside = 1 - tables[T].diagonal().mean().item()
    shared = len(families[T] & families[4.0])
    print(f"T = {T:5g}   beside the own class {100 * beside:4.1f} %   families as at T = 4: {shared}")
print("families at every temperature:")
for family in sorted(everywhere, key=len):
    print("  " + ", ".join(classes[label] for label in sorted(family)))
kin.compare(len(everywhere))

# %% [markdown]
# **What this says.** What tells a shirt that is nearly a coat from one that is nearly a dress sits, at $T = 1$, in a few
# percent of the probability. A higher temperature makes these numbers count, and leaves most of the families as they
# are. Whether a student lives on this table of relatives, or on what is particular to each image, section 5 measures.

# %% [markdown]
# ## 3. Why is there a $T^2$ in the loss?
#
# The distill term of lesson 01 is $T^2\, \mathrm{KL}(p \,\|\, q)$, with the student's softened prediction
# $q = \mathrm{softmax}(z / T)$. All that a training needs of it is its gradient in the student's logits $z$. Without a
# temperature, the gradient of a cross-entropy in the logits is *prediction minus target*. What does $T$ make of it?
#
# ### Exercise: the gradient, without autograd

# %% exercise="soft_gradient" tags=["projector"]

# %% [markdown]
# Now train with it. `through` hands the library a number whose gradient in the student's logits is *yours*: the gradient,
# held fixed, times the logits. After one epoch we compare with a student of the same seed that the library trained by
# its own loss. Then your gradient trains one to the end.

# %% tags=["projector"]
my_gradient = mine("soft_gradient", soft_gradient)
transfer_set = train.take(1000, seed=0)
known = lesson02.known_logits(teacher, transfer_set)  # the teacher's, of these images
epochs = profile.choose(ci=2, lesson=lesson02.EPOCHS, full=lesson02.EPOCHS)


def through(student_logits, teacher_logits, temperature):
    gradient = torch.as_tensor(my_gradient(student_logits.detach(), teacher_logits, temperature))
    return (gradient * student_logits).sum()


def trained(epochs, **loss):
    student = models.build("tiny-cnn", seed=0)
    training.distill(student, known, transfer_set, epochs=epochs, temperature=4.0, alpha=0.9, progress=False, **loss)
    return student


# %% tags=["projector"]
one_epoch = [inference.predict_logits(student, dataset.test) for student in (trained(1, loss=through), trained(1))]
apart = (one_epoch[0] - one_epoch[1]).abs().max().item()
print(f"after one epoch the logits differ by {apart:.5f} at most; the largest is {one_epoch[1].abs().max():.1f}")
student = trained(epochs, loss=through)
print(f"at the end: {100 * metrics.accuracy(student, dataset.test):.1f} % of the test images right")
z, v = inference.predict_logits(student, transfer_set).double(), known.double()

# %% [markdown]
# So this is all that a student needs from its teacher, for each image:
#
# $$\frac{\partial}{\partial z}\, T^2\, \mathrm{KL} = T^2 \cdot \frac{1}{T}\, (q - p)$$
#
# The $1 / T$ comes from the chain rule, because the softmax sees $z / T$. For large $T$ softening shrinks $q - p$ as well,
# as section 4 shows, by another $1 / T$. There $T^2$ makes up for both, and the gradient keeps its length. What does it
# do in the usual range?

# %%
length = predict(
    "Your student, trained to the end. From T = 1 to T = 8, what becomes of the length of this gradient, T^2 included?",
    {"it shrinks": (0, 0.8), "it stays (within a quarter)": (0.8, 1.25), "it grows, up to fourfold": (1.25, 4),
     "it grows more than fourfold": (4, None)}, unit="times",
)
length

# %%
def lengths(T):
    """Mean length, over the images, of what the label and the teacher (with T^2) send into the student's logits."""
    task = z.softmax(dim=1) - F.one_hot(transfer_set.labels, 10)
    distill = len(z) * torch.as_tensor(my_gradient(z, v, T))  # of each image, not its share in the mean
    return task.norm(dim=1).mean().item(), distill.norm(dim=1).mean().item()


print("mean length of q - p, and of the distill gradient over that of the task gradient")
for T in (1, 2, 4, 8, 16, 32, 64):
    task, distill = lengths(T)
    print(f"T = {T:2}   q - p {distill / T:.3f}   without T^2 {distill / task / T**2:.5f}   with T^2 {distill / task:.2f}")
length.compare(lengths(8)[1] / lengths(1)[1])

# %% tags=["figure"]
with figures.style():
    figure = Figure(figsize=(8, 3.4))
    axes = figure.subplots()
    T_line = np.geomspace(0.5, 64, 60)
    task, distill = np.transpose([lengths(T) for T in T_line])
    axes.loglog(T_line, task, "--", color=figures.COLOURS["label"], label="task (label)")
    axes.loglog(T_line, distill, color=figures.COLOURS["teacher"], label="distill (teacher), with T²")
    axes.loglog(T_line, distill / T_line**2, ":", color=figures.COLOURS["teacher"], label="without T²")
    axes.set(xlabel="temperature T", ylabel="length of the gradient")
    axes.set_xticks([0.5, 1, 2, 4, 8, 16, 32, 64], ["0.5", "1", "2", "4", "8", "16", "32", "64"])
    axes.minorticks_off()
    plots.legend(figure)
figures.show(figure, "length of the gradient that each term sends into the student's logits. With T² the teacher's first "
             "grows with T, then stays; without it, it falls, in the end to a hundredth at each tenfold T.")

# %% [markdown]
# **What this says.** $T^2$ keeps the length from about $T = 16$ on. Below, the gradient still grows with $T$: at $T = 1$
# teacher and trained student mostly agree on the first class, and softening brings their other differences into $q - p$,
# which at first does not shrink. So in the usual range a higher $T$ also weighs the teacher more, at the same $\alpha$.
# The factor is kept because the other column is worse: without it the teacher's weight falls, and never stops falling.
#
# ### What does leaving it out do to a student?
#
# Without $T^2$ the loss is one *with* $T^2$ and a smaller $\alpha$, but for its size, which the optimiser AdamW evens out.
# The students below were recorded with these smaller $\alpha$:

# %%
for T in (2, 4, 8, 24):
    print(f"alpha = 0.9 without T^2 at T = {T:2}: in truth alpha = {lesson02.alpha_without_square(T):.3f}")
missing = predict(
    "1,000 images, T = 24, alpha = 0.9. What does leaving out T^2 change in the student's test accuracy?",
    {"more than five points lost": (None, -5), "one to five points lost": (-5, -1), "less than one point": (-1, 1),
     "something gained": (1, None)},
)
missing

# %% tags=["projector"]
over_T = results.read("lesson02-temperatures").set_index(["temperature", "seed"]).sort_index()
taught = over_T[over_T["alpha"] > 0]
control = over_T[over_T["alpha"] == 0].loc[1.0]  # labels only
T_tried = [float(T) for T in taught.index.unique("temperature")]

# %%
no_square = results.read("lesson02-without-square").set_index(["temperature", "seed"]).sort_index()["accuracy"]
lost = {T: metrics.paired_interval(no_square.loc[T], taught.loc[T, "accuracy"]) for T in (2.0, 4.0, 8.0, 24.0)}
for T, interval in lost.items():
    gain = metrics.paired_interval(taught.loc[T, "accuracy"], control["accuracy"])
    print(f"T = {T:2g}   gain over labels with T^2 {plots.points(gain)}   change without it {plots.points(interval)}")
print(results.provenance("lesson02-without-square"))
missing.compare(lost[24.0])

# %% [markdown]
# **What this says.** Leaving $T^2$ out raises no error. It turns the choice of $T$ into a hidden choice of $\alpha$. At
# $T = 2$ nothing shows; at $T = 24$ most of the gain is gone, and the temperature gets the blame.
#
# ### Exercise: repair a loss
#
# Compare its value and its gradient with what you know by now.

# %% exercise="repair_soft_loss"

# %% [markdown]
# ## 4. What remains when the temperature grows without bound?
#
# For large $T$ the exponentials are nearly straight lines, and with $N$ classes
#
# $$q_k \approx \frac{1}{N} \left(1 + \frac{z_k - \bar z}{T}\right), \qquad
# T\,(q_k - p_k) \;\longrightarrow\; \frac{(z_k - \bar z) - (v_k - \bar v)}{N}$$
#
# The right side is the gradient of half the mean squared difference between *centred* logits (logits less their mean).
# So distillation at a high temperature is *logit matching* (Hinton, Vinyals and Dean 2015, section 2.1).

# %% tags=["projector"]
nearness = predict(
    "T = 16 is high for a temperature in use. How far is the gradient from its limit there (distance over length)?",
    {"below 1 %": (0, 1), "1 to 10 %": (1, 10), "10 to 60 %": (10, 60), "more": (60, None)}, unit="%",
)
nearness

# %% tags=["projector"]
limit = ((z - z.mean(dim=1, keepdim=True)) - (v - v.mean(dim=1, keepdim=True))) / 10
T_limit = [float(2**power) for power in range(11)]
pull = {T: len(z) * torch.as_tensor(my_gradient(z, v, T)) for T in T_limit}
distance = {T: ((pull[T] - limit).norm() / limit.norm()).item() for T in T_limit}
slope = np.log(distance[1024.0] / distance[64.0]) / np.log(1024 / 64)
print(", ".join(f"T = {T:g}: {100 * distance[T]:.2f} %" for T in (1.0, 4.0, 16.0, 64.0, 1024.0)))
print(f"slope between T = 64 and T = 1024, both axes logarithmic: {slope:.3f}")
nearness.compare(distance[16.0])

# %% tags=["projector", "figure"]
def draw_limit(figure):
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    row = v.softmax(dim=1).max(dim=1).values.argmin()  # the teacher is least sure of it
    bars = left.bar(range(10), np.zeros(10), color=figures.COLOURS["teacher"], label="T (q - p)")
    left.plot(range(10), limit[row], "D", color=figures.COLOURS["student"], label="its limit")
    reach = torch.stack([pull[T][row] for T in T_limit])
    left.set_xticks(range(10), classes, rotation=50, ha="right")
    left.set(ylabel="gradient on the logit", ylim=(1.1 * reach.min(), 1.1 * reach.max()))
    left.axhline(0, color=figures.COLOURS["muted"], linewidth=1)
    right.loglog(T_limit, [distance[T] for T in T_limit], "o-", color=figures.COLOURS["teacher"], markersize=5)
    right.loglog(T_limit, 1 / np.array(T_limit), ":", color=figures.COLOURS["muted"], label="1 / T")
    (marker,) = right.plot([], [], "D", color=figures.COLOURS["student"], markersize=10)
    right.set(xlabel="temperature T", ylabel="relative distance")
    plots.legend(figure)

    def update(*, temperature):
        for bar, height in zip(bars, pull[temperature][row], strict=True):
            bar.set_height(height)
        marker.set_data([temperature], [distance[temperature]])
        return [*bars, marker]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_limit, [{"temperature": T} for T in (1.0, 64.0)], columns=1, size=(9, 3.4),
    caption="left: the gradient on the ten logits of one ambiguous image (bars) and its limit (diamonds); right: the "
    "relative distance from the limit over all images.",
)

# %% tags=["projector", "figure"]
widgets.strip(
    draw_limit, temperature=T_limit, size=(10, 3.8),
    caption="at T = 1 only classes with some probability are corrected; in the limit every logit counts the same, also "
    "those of classes that nobody would name.",
)

# %% [markdown]
# **What this says.** The limit is reached as $1 / T$, and slowly. The temperature is a dial between two ways of imitating.
# Low: match the teacher's first choices. High: match all its logits, the very negative ones as much as the others.
# Very negative logits may be noise, wrote Hinton and his coauthors, or they may be knowledge; for a student much too small
# they found temperatures in between best. Section 6 looks for the best one here, not for the reason.

# %% [markdown]
# ## 5. Which part of the soft target helps?
#
# A soft target brings three things: how *sure* the teacher is of this image, which classes *go with* which, and which
# other class this *one image* resembles. We take them apart. Each student learns from one kind of target alone
# ($\alpha = 1$, $T = 4$), on the same images, from the same initial weights. *Non-targets* are all classes but the
# label; the *confidence* is the teacher's probability for the label.
#
# - *same for all images*: the mean confidence for every label, the rest in equal shares;
# - *class means*: the mean soft target of the image's class, a row of the table of section 2;
# - *non-targets averaged*: the image's own confidence, the rest in equal shares;
# - *class pattern, own confidence*: the image's own confidence, the rest shared as in the class mean;
# - *non-targets shuffled*: the image's own numbers, all but the confidence at classes drawn once by chance.

# %% tags=["projector"]
soft = (known / lesson02.TEMPERATURE).softmax(dim=1)
kinds = [kind for kind in lesson02.TARGETS if kind != "label smoothing"]
variants = {"hard labels": F.one_hot(transfer_set.labels, 10).float()}
variants |= {kind: lesson02.reshaped(kind, soft, transfer_set.labels) for kind in kinds}
shirts = (transfer_set.labels == classes.index("Shirt")).nonzero().flatten()
shirts = shirts[soft[shirts, classes.index("Shirt")].argsort()]  # from the least to the most shirt-like

# %% tags=["projector", "figure"]
def in_two_lines(kind):
    return kind.replace(", ", ",\n") if "," in kind else kind.replace(" ", "\n", 1)


def draw_targets(figure):
    picture, *panels = figure.subplots(1, 1 + len(variants), width_ratios=[1.3] + len(variants) * [1])
    picture.axis("off")
    drawn = picture.imshow(np.zeros((28, 28)), cmap="gray_r", vmin=0, vmax=255)
    bars = [axes.barh(range(10), np.zeros(10), color=figures.COLOURS["teacher"]) for axes in panels]
    diamonds = [axes.plot([], [], "D", color=figures.COLOURS["label"], markersize=7)[0] for axes in panels]
    for axes, kind in zip(panels, variants, strict=True):
        axes.set_title(in_two_lines(kind), fontsize=10)
        axes.set(xlim=(0, 1.1), xticks=[0, 1], ylim=(9.6, -0.6))
        axes.set_yticks(range(10), classes if axes is panels[0] else [], fontsize=10)

    def update(*, image):
        row = shirts[image * (len(shirts) - 1) // 10].item()
        drawn.set_data(transfer_set.images[row, 0])
        for targets, container, diamond in zip(variants.values(), bars, diamonds, strict=True):
            for bar, width in zip(container, targets[row].tolist(), strict=True):
                bar.set_width(width)
            diamond.set_data([1], [transfer_set.labels[row].item()])
        return [drawn, *(bar for container in bars for bar in container), *diamonds]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_targets, {"targets at T = 4": {"image": 6}}, columns=1, size=(12, 3.2),
    caption="a shirt, and what each kind of target says of it (bars; the diamond is the label). Each keeps another part of "
    "the full soft target on the right; shuffled non-targets are its numbers at wrong classes.",
)

# %% tags=["projector", "figure"]
widgets.explorer(draw_targets, image=widgets.slider(0, 10, value=6), size=(12, 3.4),
                 caption="eleven shirts, from what the teacher takes least for a shirt to what it takes most for one.")

# %%
equal_rest = predict(
    "The label keeps the teacher's confidence, the non-targets share the rest equally. What does that cost against the "
    "full soft target?",
    {"more than two points": (None, -2), "half a point to two": (-2, -0.5), "less than half a point": (-0.5, None)},
)
equal_rest

# %%
class_rest = predict(
    "Now they share it as the class does in the mean (a shirt: so much coat, so much T-shirt). What does that gain over "
    "equal shares?",
    {"it costs more than 0.6": (None, -0.6), "0.6 at most, up or down": (-0.6, 0.6), "0.6 to one": (0.6, 1),
     "more than one": (1, None)},
)
class_rest

# %% [markdown]
# Any target $p$ can take the teacher's place, because $T \log p$ are logits whose softmax at $T$ is $p$. Three kinds live,
# on a few seeds (add others to `live_kinds`); below, all of them, recorded by the same function:

# %%
live_kinds = ("hard labels", "class pattern, own confidence", "full soft target")
seeds = profile.choose(ci=range(2), lesson=range(6), full=range(20))
cells = [{"target": kind, "seed": seed, "epochs": epochs} for kind in live_kinds for seed in seeds]
live = map_cells(lesson02.one_target, cells, workers=profile.choose(ci=0, lesson=None, full=None))
live = live.pivot(index="seed", columns="target", values="accuracy")
for kind in live_kinds:
    print(f"{kind:30} {plots.percent(plots.mean_interval(live[kind]))}")

# %%
parts = results.read("lesson02-targets").pivot(index="seed", columns="target", values="accuracy")
whole = (parts["full soft target"] - parts["hard labels"]).mean()
steps = [("same for all images", "hard labels"), ("class means", "same for all images"),
         ("non-targets averaged", "same for all images"), ("class pattern, own confidence", "non-targets averaged"),
         ("full soft target", "class pattern, own confidence"), ("full soft target", "non-targets averaged"),
         ("non-targets shuffled", "non-targets averaged"), ("non-targets shuffled", "hard labels")]
step = {pair: metrics.paired_interval(parts[pair[0]], parts[pair[1]]) for pair in steps}
for (kind, other), interval in step.items():
    print(f"{kind:29} over {other:29} {plots.points(interval)}   {round(100 * interval.mean / whole):4} % of the whole")
print(results.provenance("lesson02-targets"))
print(equal_rest.compare([-step["full soft target", "non-targets averaged"][i] for i in (0, 2, 1)]))
class_rest.compare(step["class pattern, own confidence", "non-targets averaged"])

# %% tags=["figure"]
with figures.style():
    figure = Figure(figsize=(12, 3.8))
    axes = figure.subplots()
    plots.differences(axes, {in_two_lines(kind): parts[kind] - parts["hard labels"] for kind in lesson02.TARGETS})
    axes.set_ylabel("gain over hard labels (points)")
figures.show(figure, "paired gain over hard labels of students that learn from one kind of target. Each dot is a seed; "
             "diamonds are means with 95 % intervals.")

# %% [markdown]
# **What this says.** Go up the steps.
#
# - *Softness alone*, the same for every image, is a part of the gain. Label smoothing is nothing else; Yuan and others
#   (2020) read distillation as a learned kind of it.
# - *How sure the teacher is of each image* adds about as much: perhaps because a student need not bend to an image that
#   the teacher itself doubts.
# - *Which classes go with which*, the table of section 2, adds nothing that shows, neither alone nor with the
#   confidence of the image: both intervals hold zero.
# - *Which other class this one image resembles* adds about as much again; and it must be the right class, for the same
#   numbers at wrong classes are worse than equal ones.
#
# Furlanello and others (2018) shuffled all but their teachers' first choice, and the students still gained: a shuffle
# leaves the confidence. Zhao and others (2022) split the loss along the same line, label here, non-targets there. The
# popular story, "a student learns that shirts resemble coats", does not show in these students: what helped them, beyond
# mere softness, is said of the single image, and that takes a teacher and no table. Where a whole class is missing, as
# in lesson 01, the non-targets are all that tells of it.

# %% [markdown]
# ## 6. Which temperature should you take?
#
# Students on 1,000 images at fifteen temperatures, $\alpha = 0.9$, ten seeds each. Usual choices lie between `2` and `20`:
# below, so the thought, a soft target says no more than the label; above, it says nothing any more. We compare each
# with $T = 4$, which lesson 01 fixed beforehand, in pairs of one seed. Where the interval of the differences holds zero,
# the two are *not told apart*.

# %%
ends = predict(
    "Outside on either side: T = 100 against T = 1/4, in test accuracy?",
    {"T = 100 is worse by more than half a point": (None, -0.5), "no difference to speak of": (-0.5, 0.5),
     "T = 100 is better by up to three points": (0.5, 3), "by more than three": (3, None)},
)
ends

# %%
accuracy = {T: taught.loc[T, "accuracy"] for T in T_tried}
against = {T: metrics.paired_interval(accuracy[T], accuracy[4.0]) for T in T_tried}
told_apart = [T for T in T_tried if against[T].low > 0 or against[T].high < 0]
plateau = [T for T in T_tried if not any(min(T, 4) <= other <= max(T, 4) for other in told_apart)]
pairs = [metrics.paired_interval(accuracy[a], accuracy[b]) for a in plateau for b in plateau if a < b]
separated = sum(interval.low > 0 or interval.high < 0 for interval in pairs)
over_labels = {T: metrics.paired_interval(accuracy[T], control["accuracy"]) for T in T_tried}
for T in T_tried:
    place = "plateau" if T in plateau else "told apart from T = 4" if T in told_apart else ""
    print(f"T = {T:4g}   over labels {plots.points(over_labels[T])}   over T = 4 {plots.points(against[T])}   {place}")
largest, scatter = max(abs(interval.mean) for interval in pairs), accuracy[4.0].std()
print(f"on the plateau {separated} of {len(pairs)} pairs are told apart, by {100 * largest:.1f} points at most; "
      f"from seed to seed the accuracy at T = 4 scatters by {100 * scatter:.1f}")
weight_aside = metrics.paired_interval(no_square.loc[4.0], accuracy[1.0])
print(f"T = 4 without T^2 (alpha = {lesson02.alpha_without_square(4.0):.2f}) over T = 1: {plots.points(weight_aside)}")
print(results.provenance("lesson02-temperatures"))
ends.compare(metrics.paired_interval(accuracy[100.0], accuracy[0.25]))

# %% tags=["figure"]
with figures.style():
    figure = Figure(figsize=(11, 3.9))
    left, right = figure.subplots(1, 2)
    low, high = (100 * value for value in plots.mean_interval(control["accuracy"])[1:])
    left.axhspan(low, high, color=figures.COLOURS["label"], alpha=0.4, linewidth=0, label="labels only")
    plots.band(left, T_tried, [*accuracy.values()], colour=figures.COLOURS["teacher"], label="with a teacher")
    left.set(ylabel="test accuracy (%)")
    right.axvspan(min(plateau), max(plateau), color=figures.COLOURS["mix"], alpha=0.15, linewidth=0, label="the plateau")
    right.axhline(0, color=figures.COLOURS["muted"], linewidth=1)
    differences = {T: accuracy[T] - accuracy[4.0] for T in T_tried}
    groups = {"not told apart from T = 4": [None if T in told_apart else differences[T] for T in T_tried],
              "told apart": [differences[T] if T in told_apart else None for T in T_tried]}
    plots.intervals(right, T_tried, groups, styles={"told apart": {"color": figures.COLOURS["student"], "fmt": "D"}})
    right.set(ylabel="points over T = 4")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="temperature T")
        axes.set_xticks([0.25, 1, 4, 16, 64], ["0.25", "1", "4", "16", "64"])
        axes.minorticks_off()
    plots.legend(figure)
figures.show(figure, "left: test accuracy over the temperature, bands are 95 % intervals over ten seeds. Right: paired "
             "difference from T = 4; the plateau ends at the first temperature on either side that is told apart.")

# %% [markdown]
# **What this says.** No temperature ruins the student: all beat labels only. *Too low* costs most; at a quarter little
# more than the teacher's first choice is left to learn from. That a low $T$ also weighs the teacher less (section 3) is
# not the reason: $T = 4$ without $T^2$ weighs it less still, and is better than $T = 1$. *Too high* costs a fraction of
# that, and at a hundred no more that shows than at twenty-four, as the limit of section 4 would have it: logit matching
# keeps most of the gain. In between lies the *plateau*: temperatures that are not told apart from `4`. It may slope, as
# some of its pairs suggest, but by less than one seed differs from the next: whoever reports a best temperature from one
# run on it reports luck.
#
# Hinton, Vinyals and Dean (2015, section 3) saw both on MNIST: with wide students all temperatures above `8` did about the
# same; with very narrow ones `2.5` to `4` did best.
#
# ### Is it so everywhere?
#
# Turn the regime round, as lesson 01 did: 9,000 images, a few passes. Each temperature has the learning rate that suited
# it best on the validation split.

# %%
short = predict(
    "9,000 images, one pass, each at its own best rate. T = 2 against T = 4, in test accuracy?",
    {"T = 2 is worse": (None, -0.3), "no difference to speak of": (-0.3, 0.3), "better by up to 2.5 points": (0.3, 2.5),
     "better by more": (2.5, None)},
)
short

# %%
hurts = results.read("lesson01-hurts").set_index(["passes", "method", "seed"]).sort_index()["accuracy"]
few_passes = {n: metrics.paired_interval(hurts[n, "T = 2, tuned"], hurts[n, "T = 4, tuned"]) for n in (1, 2, 4)}
for n, interval in few_passes.items():
    print(f"{n} pass{'es' if n > 1 else '  '}   T = 2 over T = 4: {plots.points(interval)}")
print(results.provenance("lesson01-hurts"))
short.compare(few_passes[1])

# %% [markdown]
# **What this says.** With one pass over many images the lower temperature wins, and the difference shrinks as the training
# goes on. A likely reason: all the logits are more to learn than the first choices, and take longer. So the plateau
# belongs to its regime.
#
# **Which one to take, then?** Start with `4`. Expect little from tuning it. If training is short, try `2`, on the
# validation split. If the temperature matters a lot in your code, look first whether $T^2$ is there.
#
# ### Exercise: an experiment of your own
#
# Choose a question, and write the experiment that answers it. `check` rehearses it with invented accuracies and judges how
# it is set up, not what comes out. The cell below then runs it with real students.

# %% exercise="temperature_on_trial"

# %%
lab = Laboratory(profile)
interval = mine("temperature_on_trial", temperature_on_trial)(lab)
print(f"measured: {plots.points(metrics.Interval(*interval))}")
lab

# %% [markdown]
# ## Summary
#
# - A temperature above one adds no knowledge to a soft target. It makes small probabilities count; the order of the
#   classes stays.
# - A training needs only the gradient $T\,(q - p)$. The factor $T^2$ keeps its length for large $T$; in the usual range a
#   higher $T$ still weighs the teacher more. Without the factor, choosing $T$ means choosing $\alpha$ unawares.
# - For large $T$ distillation becomes the matching of centred logits; the limit is reached as $1 / T$.
# - The gain has three parts of similar size: softness, the teacher's confidence in the single image, and which other
#   class the single image resembles. What is common to a class brought nothing that shows.
# - The accuracy rises with $T$ up to a plateau and falls a little beyond it. Start with `4`; with short training try `2`.
#
# ### What is honest here, and what is not
#
# - $T = 4$ and $\alpha = 0.9$ come from lesson 01; no temperature was chosen by the test accuracies shown here. They do
#   rank the temperatures of section 6, so the one with the highest mean is no recommendation.
# - Learning rate, weight decay and epochs were the same at all fifteen temperatures, and for all kinds of target in section
#   5; at a higher rate, or more epochs, both labels and teacher do better (lesson 01), and differences may narrow.
# - Section 5 adds the parts in one order; in another, each could get another share. The shuffle is drawn once for each
#   image, so its students can learn the wrong classes by heart; drawn anew in each epoch it might cost less.
# - Not telling two temperatures apart is not the same as their being equal: ten seeds leave the printed intervals. Many
#   pairs are compared; of a hundred, some five differ by more than their interval by chance alone.
# - The intervals cover seeds and samples of images, not other data sets, networks or training lengths; the end of
#   section 6 shows that the length matters.

# %% [markdown]
# ## Further
#
# What follows goes beyond the core of this lesson. Take what you need.
#
# ### Exercise: which temperature makes it that soft?
#
# The same temperature softens a sure prediction less than a torn one. Find the temperature for a wanted entropy.

# %% exercise="temperature_for_entropy"

# %% [markdown]
# ### Does label smoothing spoil a teacher?
#
# Müller, Kornblith and Hinton (2019) reported that a network trained with label smoothing is a worse *teacher*: smoothing
# asks for equal probabilities of all wrong classes, and so erases what a student could learn. Shen and others (2021)
# found no such harm in general. Chandrasegaran and others (2022) found it where a smoothed teacher meets a high temperature,
# and advise a low one. Our test: small teachers, trained on 9,000 images with more and more smoothing, all else equal; each
# teaches students on 1,000 of these images at four temperatures.

# %%
smoothing_harm = predict(
    "Smoothing of 0.4 in the teacher, T = 4. What does it change in the students' accuracy, against no smoothing?",
    {"it falls": (None, 0), "it rises by up to one point": (0, 1), "it rises by more": (1, None)},
)
smoothing_harm

# %% tags=["projector"]
smoothed = results.read("lesson02-smoothed-teachers").set_index(["smoothing", "seed"]).sort_index()
smoothings = list(smoothed.index.unique("smoothing"))
student_T = [f"T = {T:g}" for T in lesson02.STUDENT_TEMPERATURES]

# %% tags=["projector", "figure"]
def draw_smoothing(figure):
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    plots.band(left, smoothings, [smoothed.loc[s, "teacher"] for s in smoothings],
               colour=figures.COLOURS["teacher"], label="teacher")
    (at_teacher,) = left.plot([], [], "D", color=figures.COLOURS["student"], markersize=11)
    left.set(xlabel="label smoothing of the teacher", ylabel="accuracy (%)", title="teachers")
    of = {s: [smoothed.loc[s, name] for name in student_T] for s in smoothings}
    groups = {"of the teacher without smoothing": of[0.0], "of this teacher": of[smoothings[-1]]}
    styles = {"of the teacher without smoothing": {"color": figures.COLOURS["muted"], "fmt": "o-"},
              "of this teacher": {"color": figures.COLOURS["student"], "fmt": "D-"}}
    move = plots.intervals(right, range(len(student_T)), groups, styles=styles, dodge=10)
    means = 100 * smoothed[student_T].groupby("smoothing").mean().to_numpy()
    right.set_xticks(range(len(student_T)), student_T)
    right.set(xlim=(-0.3, 3.3), ylim=(means.min() - 1.2, means.max() + 0.8), title="their students")
    plots.legend(figure)

    def update(*, smoothing):
        at_teacher.set_data([smoothing], [100 * smoothed.loc[smoothing, "teacher"].mean()])
        return [at_teacher, *move({**groups, "of this teacher": of[smoothing]})]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_smoothing, {f"smoothing {s:g}": {"smoothing": s} for s in (0.1, 0.4)}, columns=1, size=(9, 3.3),
    caption="left: test accuracy of the teachers over their label smoothing; right: of their students at four temperatures, beside "
    "those of the teacher without smoothing. Intervals over ten seeds.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_smoothing, smoothing=smoothings, size=(10, 3.6), caption="more and more smoothing of the teacher.")

# %%
change, change_of_teacher = {}, {}
for s in smoothings[1:]:
    with_smoothing, plain = smoothed.loc[s], smoothed.loc[0.0]
    change_of_teacher[s] = metrics.paired_interval(with_smoothing["teacher"], plain["teacher"])
    print(f"smoothing {s:g} against none: teacher {plots.points(change_of_teacher[s])}")
    for name in student_T:
        change[s, name] = metrics.paired_interval(with_smoothing[name], plain[name])
        told = with_smoothing[f"beyond_class, {name}"].mean() / plain[f"beyond_class, {name}"].mean()
        print(f"    {name}   students {plots.points(change[s, name])}   told beyond the class: {100 * told:.0f} %")
at_one_over_four = metrics.paired_interval(*(
    smoothed.loc[0.4, name] - smoothed.loc[0.0, name] for name in ("T = 1", "T = 4")
))
print(f"gain by smoothing 0.4 at T = 1 over that at T = 4: {plots.points(at_one_over_four)}")
one_against_four = metrics.paired_interval(smoothed.loc[0.4, "T = 1"], smoothed.loc[0.4, "T = 4"])
print(f"students of the teachers with smoothing 0.4: T = 1 over T = 4: {plots.points(one_against_four)}")
flatter = smoothed.loc[0.0, "beyond_class, T = 8"].mean() / smoothed.loc[0.0, "beyond_class, T = 1"].mean()
print(f"without smoothing, told beyond the class at T = 8, of what is told at T = 1: {100 * flatter:.0f} %")
print(results.provenance("lesson02-smoothed-teachers"))
smoothing_harm.compare(change[0.4, "T = 4"])

# %% [markdown]
# **What this says.** The more smoothing, the less the soft targets tell, in nats, about an image beyond its class, as the
# paper of 2019 has it. But a higher temperature does the same to a teacher without smoothing (printed last but one), and its
# students do not suffer: part of the fall is only that the logits of a smoothed teacher are small. The harm is not there:
# these teachers got a little better, and so did their students, perhaps for that reason alone. With strong smoothing they
# gain most at $T = 1$, where there was most to gain; but $T = 1$ does not become better than $T = 4$. So these students do
# not need the advice of 2022, to take a low temperature then.
#
# All these teachers share size, images and epochs, and differ in the smoothing alone; that is what the table is about. They are
# smaller than the course's teacher, saw fewer images, and saw them less often: a comparison with it would mix all
# three, and says nothing of smoothing. Teachers trained to the end may well behave as in 2019.
#
# ### Calibration and agreement over the temperature
#
# Accuracy is not everything. How far a student's confidence is from how often it is right, its *calibration error* (Guo and
# others 2017), is taken here at temperature one, after the training; *agreement* is how often it answers as its teacher.

# %% tags=["projector"]
quantities = {"accuracy": "test accuracy (%)", "ece": "calibration error (%)", "agreement": "agreement with teacher (%)"}
by_T = {name: [taught.loc[T, name].to_numpy() for T in T_tried] for name in quantities}

# %% tags=["projector", "figure"]
def draw_over_temperature(figure):
    panels, moving = figure.subplots(1, 3), []
    for axes, (name, title) in zip(panels, quantities.items(), strict=True):
        low, high = (100 * value for value in plots.mean_interval(control[name])[1:])
        axes.axhspan(low, high, color=figures.COLOURS["label"], alpha=0.4, linewidth=0, label="labels only")
        plots.band(axes, T_tried, by_T[name], colour=figures.COLOURS["teacher"], label="with a teacher")
        axes.set(xscale="log", xlabel="temperature T")
        axes.set_xticks([0.25, 1, 4, 16, 64], ["0.25", "1", "4", "16", "64"])
        axes.minorticks_off()
        moving.append((axes.plot([], [], "D", color=figures.COLOURS["student"], markersize=11)[0], axes.set_title(title)))
    plots.legend(figure)

    def update(*, temperature):
        for (name, title), (marker, words) in zip(quantities.items(), moving, strict=True):
            interval = plots.mean_interval(taught.loc[temperature, name])
            marker.set_data([temperature], [100 * interval.mean])
            words.set_text(f"{title}\n{plots.percent(interval)}")
        return moving

    return update

# %% tags=["figure"]
widgets.twin(
    draw_over_temperature, {"marked: T = 4": {"temperature": 4.0}}, columns=1, size=(11, 3.8),
    caption="accuracy, calibration error and agreement with the teacher over the temperature; bands are 95 % intervals over "
    "ten seeds.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_over_temperature, temperature=T_tried, size=(12, 4.0), caption="move along the fifteen temperatures.")

# %% [markdown]
# The calibration error is smallest where the accuracy suffers most. A likely reason: below one, the loss looks at
# $z / T$, so the logits themselves stay small. Choose $T$ for what you need, or calibrate afterwards.
#
# ### How do you see it in your own training?
#
# PyTorch can compute the divergence by itself, which is a good check of any loss that you copy from somewhere:

# %%
# NBVAL_CHECK_OUTPUT
from kdlib import losses

generator = torch.Generator().manual_seed(0)
z_check, v_check = 3 * torch.randn(2, 8, 10, generator=generator, dtype=torch.float64)
for T in (0.5, 1.0, 4.0, 20.0):
    p, q = (torch.distributions.Categorical(logits=numbers / T) for numbers in (v_check, z_check))
    divergence = torch.distributions.kl_divergence(p, q).mean()
    ours = losses.soft_target_loss(z_check, v_check, T) / T**2
    assert torch.isclose(divergence, ours, rtol=1e-12)
    print(f"T = {T:4g}   torch.distributions {divergence:.10f}   kdlib without T^2 {ours:.10f}")

# %% [markdown]
# With `log_dir` the training writes what TensorBoard shows: every number of each epoch, and the soft targets as a
# histogram. Here the temperature falls from `16` to `1` during the training, so that the histogram moves. In a
# terminal, `tensorboard --logdir FOLDER` opens the same in a browser; the next cell reads the file.

# %%
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

with tempfile.TemporaryDirectory() as folder:
    training.distill(
        models.build("tiny-cnn", seed=0), known[:320], transfer_set.subset(slice(320)), epochs=5,
        temperature=lambda progress: 16.0 - 15.0 * progress, log_dir=folder, progress=False,
    )
    log = EventAccumulator(folder, size_guidance={"histograms": 0}).Reload()
    print("scalars:   ", ", ".join(log.Tags()["scalars"]))
    print("histograms:", ", ".join(log.Tags()["histograms"]))
    logged = [(event.step, event.histogram_value) for event in log.Histograms("soft_targets")]

# %% tags=["figure"]
edges = np.logspace(-4, 0, 21)
with figures.style():
    figure = Figure(figsize=(10, 2.4))
    for axes, (epoch, histogram) in zip(figure.subplots(1, len(logged), sharey=True), logged, strict=True):
        share = np.array(histogram.bucket) / sum(histogram.bucket)
        heights = np.histogram(np.clip(histogram.bucket_limit, edges[0], 1), bins=edges, weights=share)[0]
        axes.bar(edges[:-1], 100 * heights, width=np.diff(edges), align="edge", color=figures.COLOURS["teacher"])
        axes.set(xscale="log", title=f"epoch {epoch}", xlabel="probability")
    figure.axes[0].set_ylabel("soft targets (%)")
figures.show(figure, "the histograms of the soft targets as TensorBoard keeps them, epoch by epoch, while T falls: from one "
             "heap near a tenth to noughts and ones (the leftmost bar holds all below 0.0001).")

# %% [markdown]
# ## Glossary
#
# - **Temperature** $T$: what the logits are divided by before the softmax.
# - **Soft target**: the teacher's probabilities at a temperature.
# - **Entropy**: how spread a prediction is, in **nats** (natural logarithms): from zero to $\log N$ for $N$ classes.
# - **Dark knowledge**: what a soft target says beside its first class.
# - **Family**: a set of classes that the tree of section 2 joins.
# - **Logit matching**: learning the teacher's centred logits by squared error; the limit of high temperatures.
# - **Non-targets**: all classes but the label.
# - **Label smoothing**: a little probability taken from the label and spread over all classes, the same for every image.
# - **Plateau**: a range of settings that the evidence does not tell apart.
# - **Calibration error**: how far a network's confidence is from how often it is right.
#
# ## References
#
# - C. Guo, G. Pleiss, Y. Sun, K. Weinberger: On Calibration of Modern Neural Networks. 2017, arXiv 1706.04599.
# - G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network. 2015, arXiv 1503.02531.
# - T. Furlanello, Z. Lipton, M. Tschannen, L. Itti, A. Anandkumar: Born-Again Neural Networks. 2018, arXiv 1805.04770.
# - R. Müller, S. Kornblith, G. Hinton: When Does Label Smoothing Help? 2019, arXiv 1906.02629.
# - L. Yuan and others: Revisiting Knowledge Distillation via Label Smoothing Regularization. CVPR 2020, arXiv 1909.11723.
# - Z. Shen and others: Is Label Smoothing Truly Incompatible with Knowledge Distillation: An Empirical Study. 2021,
#   arXiv 2104.00676.
# - B. Zhao and others: Decoupled Knowledge Distillation. CVPR 2022, arXiv 2203.08679.
# - K. Chandrasegaran and others: Revisiting Label Smoothing and Knowledge Distillation Compatibility: What Was Missing?
#   2022, arXiv 2206.14532.

# %%
# What this lesson claims, checked. Recorded results are checked in every profile, live ones in `lesson` and `full`.
shoes = frozenset(classes.index(name) for name in ("Sandal", "Sneaker", "Ankle boot"))
assert shoes in everywhere and len(everywhere) >= 6, "the families stay"
assert apart < 0.01, "your gradient trains as the library's loss does"
ratio = {T: np.divide(*reversed(lengths(T))) for T in (4, 16, 32, 64)}
assert 0.9 < ratio[32] / ratio[16] < 1.1 and ratio[64] / 64**2 < ratio[4] / 4**2 / 50, "T^2 keeps the length at high T"
assert abs(slope + 1) < 0.1, "the limit is reached as 1 / T"
matched = (10 * limit).square().mean().item() / 2
assert abs(matched - losses.soft_target_loss(z, v, 1e4).item()) < 0.01 * matched, "logit matching is the limit"
assert lost[2.0].low < 0 < lost[2.0].high and lost[8.0].high < 0 and lost[24.0].high < lost[8.0].low, "T^2 matters at high T"
assert step["class means", "same for all images"].low < 0 < step["class means", "same for all images"].high
assert step["class pattern, own confidence", "non-targets averaged"].low < 0 < step["class pattern, own confidence", "non-targets averaged"].high
assert step["full soft target", "class pattern, own confidence"].low > 0 > step["non-targets shuffled", "non-targets averaged"].high
assert min(interval.low for interval in over_labels.values()) > 0, "every temperature beats labels only"
assert {3.0, 6.0, 8.0} < set(plateau) and max(against[T].high for T in T_tried if T < 3) < 0, "below 2 is too low"
assert min(against[T].mean for T in T_tried if T > 4) > -0.006, "too high costs little"
assert weight_aside.low > 0, "it is not the teacher's weight alone that makes T = 4 better than T = 1"
assert few_passes[1].low > 0 and few_passes[1].mean > few_passes[4].mean, "a few passes want a lower temperature"
assert min(interval.low for interval in [*change_of_teacher.values(), *change.values()]) > 0, "no harm by smoothing"
assert one_against_four.low < 0 < at_one_over_four.low, "with strong smoothing T = 1 gains most, and does not overtake"
if profile.name != "ci":
    assert lengths(8)[1] > 4 * lengths(1)[1], "in the usual range the gradient grows with T"
    live_gain = metrics.paired_interval(live["full soft target"], live["hard labels"])
    assert live_gain.low > 0, live_gain
