# %% [markdown]
# # 07 · Training strategies
#
# **Which of the advice on how to train a student survives a constant beside it?**
#
# Anneal the temperature, train in phases, add a stage, augment, put an assistant in between: every guide to distillation gives
# such advice, and hardly any measures it against doing nothing special for as long. This lesson does, and ends in a page to
# print: what to try first, and what to ask when a student is no better than its baseline.
#
# **Objectives.** After this lesson you will be able to
#
# - put a schedule beside the constant that it has to beat;
# - say what a schedule of T does where T² is missing;
# - judge an augmentation by the teacher alone, and say what a teacher must see;
# - store a teacher's answers in few bytes without teaching something false;
# - bill an assistant;
# - find out why a student is no better than its baseline.
#
# **Prerequisites.** Lessons 01 to 03: loss, temperature, alpha, and paired intervals over seeds.
#
# **Time.** About 70 minutes, nearly half of them for five exercises; the cells run in about a minute on 2 cores.

# %% tags=["parameters", "projector"]
profile = None

# %% tags=["projector"]
import functools

import pandas
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from scipy import stats

from kdlib import data, inference, losses, metrics, models, teachers, training
from kdlib.experiments import lesson07, lesson07_advice, lesson07_augmentation, lesson07_capacity
from kdlib.lesson import figures, laboratory, plots, profiles, results, widgets
from kdlib.lesson.exercises import check, hint, mine, solution
from kdlib.lesson.predictions import predict
from kdlib.training import diagnosis, schedules
from kdlib.training.augmentation import checked_augment, views_of

# %% tags=["projector"]
profile = profiles.get(profile)
figures.use_style()
pandas.set_option("display.max_colwidth", 100, "display.max_rows", 100)
dataset = data.load("fashion-mnist")
teacher = teachers.load("fashion-mnist")
judges = dataset.test.take(profile.choose(ci=200, lesson=2000, full=10_000), seed=0)
images, epochs = profile.choose(ci=(64, 2), lesson=(1000, 20), full=(1000, 20))
seeds = range(profile.choose(ci=2, lesson=3, full=10))
torch.set_num_threads(1)


def taught(seed, **settings):
    """A student by the course's defaults, T = 4 and alpha = 0.9; those of a seed share images, first weights and order."""
    split, student = dataset.train.take(images, seed=seed), models.build("tiny-cnn", seed=seed)
    asked = teacher if "augment" in settings else teachers.cached_logits(teacher, split)
    training.distill(student, asked, split, **{"epochs": epochs, "seed": seed, "progress": False} | settings)
    return student


def accuracy(seed, **settings):
    return metrics.accuracy(taught(seed, **settings), judges)

# %% [markdown]
# ## 1. Should T and alpha change over training?
#
# Hinton et al. (2015) keep T and alpha constant. Jafari et al. (2021) anneal the teacher's answers, Li et al. (2023) let T climb the gradient
# of the loss as a *curriculum*, Sun et al. (2024) *standardise* the logits, and tutorials go through phases. With $u$ the part of the
# training that is done, from 0 to 1, a schedule of T and alpha is
#
# $$L(u) = \alpha(u)\, T(u)^2\, \mathrm{KL}\big(p_t^{T(u)} \,\|\, p_s^{T(u)}\big) + (1 - \alpha(u))\, \mathrm{CE}$$
#
# A schedule that wins over *some* constant has shown nothing: its **rival**, in the tables the control, is the constant with the same mean.
#
# ### Exercise: repair a scheduler
#
# Here is a temperature scheduler with the faults of one that was published.

# %% exercise="repair_annealing"

# %% tags=["projector"]
schedule_prediction = predict(
    "Ten seeds, T from 10 to 1 on a line: how far ahead is it of the constant 5.5?",
    {"behind by half a point and more": (None, -0.5), "less than half a point apart": (-0.5, 0.5),
     "ahead by half a point to two": (0.5, 2), "ahead by more": (2, None)})
schedule_prediction

# %% [markdown]
# First with your own scheduler, on a few seeds: T from 10 to 1, and beside it the constant with the same mean.

# %%
temperatures = mine("repair_annealing", repair_annealing)(10, 1, epochs)


def annealed(progress):
    """The temperature of the epoch in which `progress`, from 0 to 1, lies."""
    return temperatures[min(int(progress * epochs), epochs - 1)]


by_hand = [accuracy(seed, temperature=annealed) for seed in seeds]
library = [accuracy(seed, temperature=schedules.linear(10, 1)) for seed in seeds]  # the library's line
rival = [accuracy(seed, temperature=sum(temperatures) / epochs) for seed in seeds]
print("annealed, over the constant of the same mean", plots.points(metrics.paired_interval(by_hand, rival)))
print("the library's, which changes T in every step, over yours", plots.points(metrics.paired_interval(library, by_hand)))

# %% [markdown]
# So few seeds leave a wide interval. The same was recorded with ten, for the six schedules of the tutorials.

# %% tags=["projector"]
planned = results.read("lesson07-schedules").set_index(["plan", "seed"]).sort_index()
print(results.provenance("lesson07-schedules"))
ahead = {plan: metrics.paired_interval(planned.loc[plan, "test"], planned.loc[other, "test"])
         for plan, other in lesson07.RIVALS.items()}
for plan, other in lesson07.RIVALS.items():
    print(f"{plan:24}over {other:24}{plots.points(ahead[plan])}")
schedule_prediction.compare(ahead["T 10 to 1, linear"])

# %% tags=["projector", "figure"]
def draw_schedule(figure):
    left, middle, right = figure.subplots(1, 3)
    moments, places = [step / 200 for step in range(200)], range(1, lesson07.EPOCHS + 1)
    style = {"color": figures.COLOURS["teacher"]}, {"color": figures.COLOURS["muted"], "linestyle": ":"}
    drawn = [(left.plot([], [], **one)[0], middle.plot([], [], **one)[0]) for one in style]
    dots, line = right.plot([], [], "o", [], [], "-", color=figures.COLOURS["student"], alpha=0.7)
    right.axhline(0, color=figures.COLOURS["muted"], linewidth=1)
    left.set(xlim=(0, 1), ylim=(0, 10.5), xlabel="training done", ylabel="T (dotted: its rival)")
    middle.set(xlim=(0, lesson07.EPOCHS + 1), ylim=(0, 1.02), xlabel="epoch", ylabel="teacher's share")
    right.set(xlim=(-1, 1), xticks=[], ylim=(-2, 2), ylabel="ahead of the rival (points)")

    def update(*, schedule):
        both = (schedule, lesson07.RIVALS[schedule])
        for (temperature, share), name in zip(drawn, both, strict=True):
            temperature.set_data(moments, [lesson07.PLANS[name].temperature(moment) for moment in moments])
            share.set_data(places, planned.loc[name, [f"share {epoch}" for epoch in places]].mean())
        gaps = 100 * (planned.loc[both[0], "test"] - planned.loc[both[1], "test"])
        dots.set_data([0] * len(gaps), gaps)
        line.set_data([-0.4, 0.4], [gaps.mean()] * 2)
        return [*drawn[0], *drawn[1], dots, line]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_schedule, {name: {"schedule": name} for name in ("T 10 to 1, linear", "three phases")}, columns=1, size=(10.5, 3),
    caption="two schedules and their rivals (the phases change alpha, too). Left: T over the training. Middle: the teacher's share of the gradient on the logits "
    "(lesson 03), mean of ten seeds. Right: a dot a seed, the difference on the test images.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_schedule, schedule=list(lesson07.RIVALS), size=(10.5, 3.3), caption="the same with a slider over the schedules.")

# %% [markdown]
# With T² the teacher's share hardly follows T; and constants from T = 3 to 16 lie within half a point of each other, so that a walk
# among them has little to win. **What if T² is missing**, as in much published code?

# %% tags=["projector"]
square_prediction = predict(
    "T rises from 1 to 8. How far ahead is the student whose loss lacks T² of the one whose loss has it?",
    {"behind by more": (None, -2), "behind by half a point to two": (-2, -0.5), "less than half a point apart": (-0.5, 0.5), "ahead": (0.5, None)})
square_prediction

# %% tags=["projector"]
square_prediction.compare(metrics.paired_interval(planned.loc["T 1 to 8, without T^2", "test"], planned.loc["T 1 to 8", "test"]))

# %% [markdown]
# Divide a loss that lacks T² by the sum of its weights, and it is ours with another alpha:
#
# $$\alpha'(u) = \frac{\alpha / T(u)^2}{\alpha / T(u)^2 + 1 - \alpha}$$
#
# So here is a third student. Its T is constant, at the mean, with T²; and only its *alpha* follows $\alpha'(u)$.

# %% tags=["projector"]
# NBVAL_CHECK_OUTPUT
apart = {plan: metrics.paired_interval(planned.loc[plan, "test"], planned.loc[f"alpha of {plan}", "test"])
         for plan in lesson07.WITHOUT_SQUARE}
for plan, gap in apart.items():
    print(f"{plan:24}over the one whose alpha changes {plots.points(gap)}")

# %% [markdown]
# **What this says.** Over its constant no schedule of T wins here, and the three phases lose. Where T² is missing, about three quarters of the
# harm is done by alpha alone: whoever finds that raising T harms may have found that a falling alpha does. But did every schedule only
# need settings of its own? Those of T got as many on validation as the constant did: amplitude, alpha and learning rate. A **verdict**
# in these tables needs two sets of ten seeds that agree.

# %% tags=["projector"]
advice = lesson07_advice.rows()
gains = advice.set_index(["advice", "over"])["gain"]
of_schedules = advice[advice["topic"] == "schedules"].set_index("advice")
tuned = [words for words in of_schedules.index if words.endswith("tuned")]
lesson07_advice.shown(of_schedules.loc[tuned].reset_index())

# %% [markdown]
# Nowhere is a tuned schedule ahead of the tuned constant. Two rows of the long table under *Further* are worth a look. Alpha that rises "at
# every tenth epoch that stalls" almost never rises: for forty epochs the validation accuracy goes on growing, so the advice does not act.
# And standardised logits with weights 9 to `0.1` are ahead of a constant with the lesson's seeds; with ten others they are not told
# apart from it. One interval of many lies above 0 by chance: ask it again.
#
# ## 2. One stage or two?
#
# Three recipes in two stages: the teacher's targets alone and then labels for the last layer; distillation and then labels for all
# weights; and FitNets (Romero et al. 2015), where first the features of a middle layer are matched, then the answers. Their rival is
# one stage with *as many steps*.
#
# A fourth recipe does not wait for a teacher: one tutorial teaches it *beside* the student, with CE + `0.1` times the sum of the squared
# differences of the logits. As printed the program cannot run: among other faults, the student's loss reaches back into the
# teacher. Made to run:

# %%
def teach_beside(teacher, student, batches):
    """A step of both for each batch: the teacher learns the labels, the student the labels and the teacher's logits of now."""
    teach, learn = (torch.optim.AdamW(network.parameters(), lr=0.01) for network in (teacher, student))
    for pictures, labels in batches:
        teacher_logits = teacher(pictures)
        teach.zero_grad()
        F.cross_entropy(teacher_logits, labels).backward()
        teach.step()
        student_logits = student(pictures)
        apart = (student_logits - teacher_logits.detach()).square().sum()  # without detach: "backward a second time"
        learn.zero_grad()
        (F.cross_entropy(student_logits, labels) + 0.1 * apart).backward()
        learn.step()
    return apart.item() / len(labels)


torch.manual_seed(0)
few = dataset.train.take(images, seed=0)
young, pupil = models.TinyCNN(widths=(32, 64, 128)), models.build("tiny-cnn", seed=0)
order = [rows for _ in range(profile.choose(ci=1, lesson=5, full=20)) for rows in torch.randperm(len(few)).split(32)]
distance = teach_beside(young, pupil, [(few.normalized(rows), few.labels[rows]) for rows in order])
print(f"teacher {metrics.accuracy(young.eval(), judges):.1%}, student {metrics.accuracy(pupil.eval(), judges):.1%}; "
      f"their logits {distance:.1f} apart (squared, an image)")

# %% [markdown]
# It runs. But whose knowledge does the student get?

# %% tags=["projector"]
stage_prediction = predict(
    "Forty passes: how far is distillation and then labels for all weights, tuned, ahead of one stage?",
    {"behind by more than a point": (None, -1), "less than one point apart": (-1, 1), "ahead by more": (1, None)})
beside_prediction = predict(
    "A teacher taught beside the student, over the same teacher finished first: how far ahead is its student?",
    {"behind by more than a point": (None, -1), "less than one point apart": (-1, 1), "ahead by more": (1, None)})
display(stage_prediction, beside_prediction)

# %% [markdown]
# Learning rates and the length of the first stage were chosen on validation; the last rows do otherwise on purpose.

# %% tags=["projector"]
print(results.provenance("lesson07-stages"))
of_stages = advice[advice["topic"] == "stages"]
stages = results.read("lesson07-stages").query("arm in ('hint, then distil', 'one stage') and rate == 0.06")
hinted, plain = (own.set_index("seed")["accuracy"] for _, own in stages.groupby("arm"))
print("FitNets over one stage at a third of its rate", plots.points(metrics.paired_interval(hinted, plain)))
stage_prediction.compare(gains["distil, then labels", "one stage"])

# %% tags=["projector"]
beside_prediction.compare(gains["teach the teacher beside the student", "that teacher, finished first"])

# %% tags=["projector", "figure"]
lesson07_advice.shown(of_stages)

# %% [markdown]
# **What this says.** At the same learning rate none of the three is told apart from one stage. But look at what validation chose for the two that
# end on labels: the shortest and slowest second stage on offer. With half of the passes on labels both are behind. And the line above
# shows how to "find" a better recipe: FitNets' second stage ran at three times the rate of the one stage beside it, and was a point
# ahead. At an equal rate the point is gone.
#
# A teacher taught beside the student is not told apart from one finished first, and with it the student stays behind labels alone: it has
# seen the same 1,000 images and no more. The course's teacher, by the same loss, is far ahead of labels. What a teacher adds is what *it*
# learned elsewhere.
#
# ## 3. Which augmentation, when there is a teacher?
#
# An augmentation moves the images; a label stays as it was, right or not. A teacher can look again. That is why
# Beyer et al. (2022) have it answer the very *view* that the student sees. And which augmentation? Wang et al. (2022) say: one under which the
# **teacher's mean probability spreads little**. Take $g$ views at random, average the teacher's probabilities over them, do so $m$ times:
#
# $$s = \frac1C \sum_{c} \mathrm{std}_{j = 1..m}\Big( \frac1g \sum_{i \in \text{group } j} p_c(x_i) \Big)$$
#
# No student is needed for it. A group holds views of *different* images, so even the images as they are have a spread. It falls where the
# teacher's answers become softer or more alike.
#
# ### Exercise: the spread of a teacher

# %% exercise="teacher_spread" tags=["projector"]

# %% [markdown]
# Use it on six kinds of views: the images as they are; shifted and mirrored; AutoAugment (Cubuk et al. 2018); with an erased
# rectangle in three of ten; MixUp (Zhang et al. 2018) with a share of `0.2` to `0.4` of another image; CutMix (Yun et al. 2019).

# %% tags=["projector"]
spread = mine("teacher_spread", teacher_spread)
some = dataset.train.take(profile.choose(ci=50, lesson=250, full=1000), seed=0)
logits = teachers.cached_logits(teacher, some)
kinds = {name: lesson07_augmentation.draw_views(name, some, logits, seed=0).split for name in lesson07_augmentation.NAMES}


def spread_of(views):
    """The teacher's spread on views in random order."""
    order = torch.randperm(len(views), generator=torch.Generator().manual_seed(0))
    return float(spread(inference.predict_logits(teacher, views.subset(order)).softmax(dim=1), group=len(views) // 40))


spreads = {name: spread_of(views) for name, views in kinds.items()}
for name, views in kinds.items():
    labels = views.labels if views.labels.ndim == 2 else F.one_hot(views.labels, 10).float()
    order = torch.randperm(len(views), generator=torch.Generator().manual_seed(0))
    print(f"{name:15}spread {spreads[name]:.4f} in groups of {len(views) // 40}, of the labels alone {float(spread(labels[order], group=len(views) // 40)):.4f}")

# %% tags=["figure"]
from matplotlib.figure import Figure

sheet = Figure(figsize=(10, 2.2), layout="constrained")
for axes, (name, views) in zip(sheet.subplots(1, 6), kinds.items(), strict=True):
    rows = [torch.cat([*views.images[8 * image : 8 * image + 2, 0]], dim=1) for image in (0, 3)]
    axes.imshow(torch.cat(rows), cmap="gray_r")
    axes.set_title(name, fontsize=11)
    axes.axis("off")
figures.show(sheet, caption="two views of two images under each augmentation.")

# %% tags=["projector"]
spread_prediction = predict(
    "Over the six: the rank correlation (1: in the same order) of the teacher's spread with its students' test loss, given the views?",
    {"below 0.2": (-1, 0.2), "0.2 to 0.5": (0.2, 0.5), "0.5 to 0.9": (0.5, 0.9), "above 0.9": (0.9, 1)},
    unit="")
seen_prediction = predict(
    "The five augmentations, on average: what is it worth that the teacher sees the view, and not the image behind it?",
    {"less than nothing": (None, 0), "up to one point": (0, 1), "one to four points": (1, 4), "more": (4, None)})
display(spread_prediction, seen_prediction)

# %% [markdown]
# Recorded with ten seeds: eight views of each of 1,000 images, forty passes, each arm at its own learning rate from validation.

# %% tags=["projector"]
views = results.read("lesson07-augmentation").set_index(["target", "name", "seed"]).sort_index()
print(results.provenance("lesson07-augmentation"))
seen, blind, of_labels = (views.loc[target] for target in ("teacher sees the view", "teacher sees the image", "labels"))
table = seen[["spread", "loss", "accuracy"]].groupby("name").mean()
ranks = [stats.spearmanr(own["spread"], own["loss"]).statistic for _, own in seen.groupby("seed")]
others = [name for name in table.index if name != "none"]
worth = sum(seen.loc[name, "accuracy"] - blind.loc[name, "accuracy"] for name in others) / len(others)
seen_prediction.compare(metrics.paired_interval(worth, 0 * worth))

# %% tags=["projector"]
spread_prediction.compare(plots.mean_interval(ranks))

# %% tags=["projector", "figure"]
from matplotlib.figure import Figure

order = [*table["spread"].sort_values().index]
arms = {"a teacher that sees the view": seen, "a teacher that sees the image": blind, "labels": of_labels}
figure = Figure(figsize=(10, 4.2), layout="constrained")
axes = figure.subplots()
runs = {words: [arm["accuracy"].get(name) for name in order] for words, arm in arms.items()}
roles = {words: {"color": figures.COLOURS[role]} for words, role in zip(arms, ("teacher", "other", "label"), strict=True)}
plots.intervals(axes, range(len(order)), runs, styles=roles, dodge=16)
axes.set_xticks(range(len(order)), [f"{name}\n{table['spread'][name]:.4f}" for name in order])
axes.set(xlim=(-0.5, 5.6), ylabel="test accuracy (%)", xlabel="augmentation and the teacher's spread, the smallest first")
plots.legend(figure)
figures.show(figure, caption="accuracy of students under six augmentations in the order of the spread, mean and 95 % interval of ten seeds.")

# %% [markdown]
# ### Exercise: an augmentation of your own

# %% exercise="my_augmentation" tags=["projector"]

# %% [markdown]
# Use it. First the spread, and what a line through the six predicts from it for forty passes at tuned rates; then the measurement, with
# fewer passes at the course's rate, beside the images as they are. Look at the sign, no more.

# %%
own = mine("my_augmentation", my_augmentation)
of_mine = spread_of(views_of(some, checked_augment(own, some), 8, seed=0))
line = stats.linregress(list(spreads.values()), [table["accuracy"][name] - table["accuracy"]["none"] for name in spreads])
print(f"the spread of yours {of_mine:.4f}; predicted {100 * (line.intercept + line.slope * of_mine):+.1f} points over no augmentation")
passes = 8 * profile.choose(ci=1, lesson=3, full=5)
with_mine = [accuracy(seed, epochs=passes, augment=own, views=8) for seed in seeds]  # stored, and seen by the teacher
print(f"measured {plots.points(metrics.paired_interval(with_mine, [accuracy(seed, epochs=passes) for seed in seeds]))}")

# %% [markdown]
# **What this says.** Blind answers, about the image behind the view, cost CutMix and MixUp two to five points, because a mix is neither of its
# images; crop and flip hardly anything, because a shifted shirt gets the same answer. MixUp harms students of labels and helps those of a
# teacher; AutoAugment and CutMix help both about as much. Crop and flip, everybody's habit, gains nothing here.
#
# The spread is a sieve and no verdict: AutoAugment and RandomErasing have the same, and one of them helps; MixUp has the smallest and
# is not the best. Its dull explanation stands in the second column above: mixing makes even the *labels* spread less.
#
# ## 4. What must be kept of a teacher's answers?
#
# A teacher that is asked in every step is dear: its answers can be stored. Then three numbers decide how much room they take: how
# many **views** of an image, how many **classes** of an answer, and how many **bits** of a number. Of a thousand classes one keeps the $k$
# largest. And the rest? Three ways are in use: divide the kept ones by their sum (*renormalised*), set the other *logits* to
# zero (*zero-filled*), or keep what is missing to 1 in one **tail bucket** $r$, for both sides:
#
# $$L = T^2 \Big( \sum_{c \in \text{top } k} p_c \log \frac{p_c}{q_c} + p_r \log \frac{p_r}{q_r} \Big), \qquad
# q_r = \sum_{c \notin \text{top } k} q_c$$
#
# The views of this section are those of crop and flip.
#
# ### Exercise: a loss with a tail bucket

# %% exercise="stored_target_loss"

# %% [markdown]
# Use it, with two of the ten classes kept, and beside it the library's.

# %%
tail_loss = mine("stored_target_loss", stored_target_loss)


def top_two(student_logits, teacher_logits, temperature):
    """What the loss is given in each step is what would have been stored."""
    kept = (teacher_logits / temperature).log_softmax(dim=1).topk(2)
    return tail_loss(student_logits, kept.values, kept.indices, temperature)


ways = {"by hand": top_two, "the library's": functools.partial(losses.tail_bucket_loss, k=2), "all classes": losses.soft_target_loss}
print("one seed:", ", ".join(f"{words} {accuracy(0, loss=loss):.1%}" for words, loss in ways.items()))

# %% tags=["projector"]
filled_prediction = predict(
    "Three classes of ten are kept, the other logits are zero. How far ahead is its student of one of all classes?",
    {"behind by more than three points": (None, -3), "behind by one to three": (-3, -1),
     "less than one point apart": (-1, 1), "ahead": (1, None)})
live_prediction = predict(
    "Eight stored views of an image, over a new view in every step: how far ahead?",
    {"behind by more than one point": (None, -1), "less than one point apart": (-1, 1), "ahead by more": (1, None)})
display(filled_prediction, live_prediction)

# %% tags=["projector"]
print(results.provenance("lesson07-targets"))
filled_prediction.compare(gains["keep the top 3, zero-filled", "all classes"])

# %% tags=["projector"]
live_prediction.compare(gains["store 8 views an image", "new views in every step"])

# %% tags=["projector", "figure"]
lesson07_advice.shown(advice[advice["topic"] == "stored targets"])

# %% tags=["projector", "figure"]
kept = results.read("lesson07-targets")
stored = kept[kept["bytes"] > 0].groupby(["views", "form", "k"])
points_of = {key: (own["bytes"].iloc[0], plots.mean_interval(own["accuracy"])) for key, own in stored}
FORMS = ("32 bits", "16 bits", "8 bits", "tail bucket", "renormalised", "zero-filled")
BUDGETS = sorted({size for size, _ in points_of.values()})
LIVE = 100 * kept[kept["views"] == "live"]["accuracy"].mean()

# %% tags=["projector", "figure"]
def draw_budget(figure):
    axes = figure.subplots()
    for form, name, marker in zip(FORMS, ("black", "blue", "sky blue", "green", "orange", "vermillion"), "osD^vx", strict=True):
        for no_views, fill in ((True, "full"), (False, "none")):
            own = [at for key, at in points_of.items() if key[1] == form and (key[0] == "0") == no_views]
            axes.plot([size for size, _ in own], [100 * at.mean for _, at in own], marker, markersize=8, fillstyle=fill,
                      color=figures.PALETTE[name], label=form if no_views else None)
    axes.axhline(LIVE, color=figures.COLOURS["muted"], linestyle=":")
    axes.set(xscale="log", xlim=(2, 500), xlabel="megabytes for a million images", ylabel="test accuracy (%)")
    axes.set_xticks([3, 10, 30, 100, 300], [3, 10, 30, 100, 300])
    axes.minorticks_off()
    plots.legend(figure)
    (ring,) = axes.plot([], [], "o", markersize=18, fillstyle="none", color="black")
    wall, title = axes.axvline(1, color="black", linewidth=1), axes.set_title("")

    def update(*, megabytes):
        within = {key: at for key, at in points_of.items() if at[0] <= megabytes}
        best = max(within, key=lambda key: within[key][1].mean)
        ring.set_data([within[best][0]], [100 * within[best][1].mean])
        wall.set_xdata([1.05 * megabytes] * 2)
        views, form, k = best
        title.set_text(f"within {megabytes} MB: {'no' if views == '0' else views} views, {f'top {k}, ' if k else ''}{form}")
        return [ring, wall, title]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_budget, {f"{budget} MB": {"megabytes": budget} for budget in (BUDGETS[1], 80)}, columns=2, size=(6.3, 4),
    caption="what targets take and what they teach; dotted a new view in every step. Left of the line is within the budget, the "
    "ring is the highest mean there, which its neighbours may not be told apart from. Filled: the images as they are; hollow: views.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_budget, megabytes=BUDGETS, size=(8, 4.4), caption="the same with a slider over the budget.")

# %% [markdown]
# **What this says.** Sixteen and eight bits cost nothing that shows. Few classes do, and how much depends on what is said of the rest. From two
# classes on the tail bucket is ahead: it says how much is missing, and not where. Renormalised targets say that the rest is impossible. With zeros
# for the rest, a class that was dropped gets more probability than a kept one whose logit is negative: the more classes one keeps, the
# more often. One stored view of crop and flip
# is far behind a new view in every step, and eight are not told apart from it. But nor are the images as they are: this augmentation
# earns nothing, so its bytes are wasted. What AutoAugment gained in section 3 it gained from eight stored views. With ten classes all of them in 8 bits take less than a top five; of a thousand the k largest
# are what can be afforded.
#
# ## 5. Can a student be too small for its teacher?
#
# "The student needs at least a tenth of the teacher's parameters", says one overview. Mirzadeh et al. (2020) say that a large gap hurts,
# and put an **assistant** between, taught by the teacher, teaching the student. Cho and Hariharan (2019) find that the best teacher
# is not the largest. But an assistant is a second training. Its rivals are the same student taught directly, and an
# *ensemble* of both teachers, which costs as much. With $M$ multiply-adds, $N$ images, $P$ passes the bill is (3: forwards, and backwards twice as dear)
#
# $$E = \underbrace{3 M_s N_s P_s}_{\text{student}} + \sum_{\text{teachers}} \big( 3 M_t N P + M_t N \big)$$
#
# Four students from 1.7 to 119 thousand parameters, three teachers of their form up to 471 thousand, taught on 9,000 images, a teacher a seed.
# The students get 1,000 images and twenty passes, or 9,000 and three.

# %% tags=["projector"]
tenth_prediction = predict(
    "The smallest student has a 277th of its teacher's parameters. On 1,000 images: what does the teacher add to labels?",
    {"it harms": (None, 0), "up to two points": (0, 2), "two points to five": (2, 5), "more": (5, None)})
assistant_prediction = predict(
    "The smallest student, 9,000 images: how far is the one with the assistant ahead of the one taught directly?",
    {"behind by more than a point": (None, -1), "less than one point apart": (-1, 1), "ahead by more": (1, None)})
display(tenth_prediction, assistant_prediction)

# %% tags=["projector"]
print(results.provenance("lesson07-capacity"))
of_capacity = advice[advice["topic"] == "capacity"]
tenth_prediction.compare(gains["a teacher 277 times as large, 1,000 images", "labels"])

# %% tags=["projector"]
assistant_prediction.compare(gains["an assistant in between, 277 times, 9,000 images", "taught directly"])

# %% tags=["projector", "figure"]
lesson07_advice.shown(of_capacity[of_capacity["advice"].str.contains("277")])

# %% tags=["projector", "figure"]
capacity = results.read("lesson07-capacity").set_index(["images", "width", "source", "seed"]).sort_index()["accuracy"]
sizes = {width: lesson07_capacity.size(width)["parameters"] for width in (*lesson07_capacity.STUDENTS, *lesson07_capacity.TEACHERS)}
STEPS = {round(sizes[width] / 1000, 1): width for width in lesson07_capacity.STUDENTS}


def gains_of(width, several):
    """For each teacher the differences to labels, a number a seed."""
    own = capacity[several, width]
    return {"gain": [(own[str(teacher)] - own["labels"]).to_numpy() for teacher in lesson07_capacity.TEACHERS]}

# %% tags=["projector", "figure"]
def draw_capacity(figure):
    panels = dict(zip(lesson07_capacity.PASSES, figure.subplots(1, 2, sharey=True), strict=True))
    places, moves, walls = [sizes[width] for width in lesson07_capacity.TEACHERS], {}, []
    for several, axes in panels.items():
        axes.axhline(0, color=figures.COLOURS["muted"], linewidth=1)
        walls.append(axes.axvline(1, color="black", linestyle=":"))
        axes.set(xscale="log", xlim=(1.2e4, 1.6e6), ylim=(-1, 7), xlabel="parameters of the teacher", title=f"{several:,} images")
        axes.set_xticks(places, [f"{place / 1000:.0f}k" for place in places])
        axes.minorticks_off()
        moves[several] = plots.intervals(axes, places, gains_of(4, several), styles={"gain": {"color": figures.COLOURS["student"]}})
    panels[1000].set_ylabel("teacher over labels (points)")
    title = figure.suptitle(" ")

    def update(*, thousand_parameters):
        width = STEPS[thousand_parameters]
        for wall in walls:
            wall.set_xdata([10 * sizes[width]] * 2)
        title.set_text(f"a student of {thousand_parameters} thousand parameters; dotted: ten times as many")
        return [artist for several, move in moves.items() for artist in move(gains_of(width, several))] + [*walls, title]

    return update

# %% tags=["figure"]
widgets.twin(
    draw_capacity, {f"{size}k": {"thousand_parameters": size} for size in (min(STEPS), max(STEPS))}, columns=1, size=(9.5, 3.2),
    caption="what three teachers are worth to a student, over labels, mean and 95 % interval of ten seeds. Right of the dotted "
    "line the teacher has more than ten times its parameters.",
)

# %% tags=["projector", "figure"]
widgets.strip(draw_capacity, thousand_parameters=list(STEPS), size=(9.5, 3.6), caption="the same with a slider over the size of the student.")

# %% [markdown]
# **What this says.** With all 9,000 images at hand, labels for four times as long are two to three points ahead of every teacher of the two smallest
# students, for a small part of the work. With 1,000, labels gain nothing by more passes, and a teacher that knows 9,000 is worth its price: even a student of a
# 277th of it gains, if less than a larger one. What a student gains hangs on *its own* size: a teacher of 24 thousand parameters is not
# told apart from one of 471. No rule of a tenth, then, and nothing for an assistant to mend: it is told apart from none of its rivals.
#
# ## 6. What to try first, and what to ask when nothing helps
#
# Every piece of advice of this lesson, in one row each, stands under *Further*. What is left for practice:

# %% tags=["figure"]
from kdlib.experiments import lesson07_page

Markdown(lesson07_page.markdown())

# %% [markdown]
# And when a student is no better than its baseline? Six questions, in this order, each a call on *your* student. Here is one that went
# wrong; its loss looks as in many tutorials. Read it, and say before you run: which two faults, and which question says no first?

# %% tags=["projector"]
def loss_as_found(student_logits, teacher_logits, temperature):
    p = (teacher_logits / temperature).softmax(dim=1)
    return (p * (p.log() - (student_logits / temperature).log_softmax(dim=1))).mean()


students, baselines = [], []
for seed in seeds:
    students.append(taught(seed, loss=loss_as_found))
    baselines.append(taught(seed, alpha=0))
scores = tuple([metrics.accuracy(one, judges) for one in several] for several in (students, baselines))
transfer_set, held_out = dataset.train.take(images, seed=0), dataset.validation.take(200, seed=0)
diagnosis.examine(students[0], teacher, baselines[0], transfer_set, held_out, temperature=4.0, alpha=0.9, loss=loss_as_found,
                  seeds=scores if len(seeds) > 2 else None)

# %% [markdown]
# The first *no* is where to begin: $\alpha$ was `0.9`, and yet the term acts like one of the small alpha that the table prints. Divided by the
# classes as well as the images, and without T², it is 160 times too small (lesson 03).
#
# What to do tomorrow? Keep T constant, and tune it with alpha and the rate. Add AutoAugment or CutMix, and let the teacher see the views; store
# eight in 8 bits. Before an assistant or a larger teacher, train longer on all the labels that you have.
#
# ### Exercise: an experiment of your own
#
# The laboratory knows schedules, second stages, and your augmentation; `lab.settings` lists what can be set. `check` judges the design.

# %%
lab = laboratory.Laboratory(profile, epochs=24, schedules=True,
                            augmentations={"my own": own, "crop and flip": lesson07_augmentation.AUGMENTS["crop and flip"]})

# %% exercise="my_strategy_experiment"

# %%
interval = mine("my_strategy_experiment", my_strategy_experiment)(lab)
print(lab, f"the difference on the test images: {plots.points(metrics.Interval(*interval))}", sep="\n")

# %% [markdown]
# ## Summary
#
# - The rival of a schedule is the constant with its mean, and where it is tuned, the constant tuned as hard. No schedule won here.
# - With T² in the loss, T hardly moves the teacher's share. Without it, a schedule of T is mostly one of alpha.
# - Compare two stages with one of as many steps, *at the same rate*: a difference of rates looks like a stage.
# - The teacher must see what the student sees. Its spread over views is a guide to what is worth a try, and not to the order.
# - Eight bits do, and eight views where an augmentation is worth it. Of few classes keep the rest in a tail bucket; never fill logits with zeros.
# - No rule of a tenth: a student gains by its own size. With all images at hand, labels for four times as long won.
# - Where a student is no better than its baseline, ask the six questions in their order.
#
# ### What is honest here, and what is not
#
# - One set of small grey images, one form of student, and mostly 1,000 images; the course's teacher has seen all 60,000. With more images
#   or a weaker teacher the order may be another (lesson 03).
# - "Not told apart" is not "no effect": read the interval. Ten seeds see differences of `0.2` to `0.8` points, by the row. A verdict that needs two
#   sets of seeds overlooks the small ones, too. Capacity has one set.
# - "Tuned" means: the best with three seeds on 1,000 validation images, of equally many settings for schedules of T (87), of 4 to 21 for the plateau and the stages.
#   The choice is luck in part, and the intervals do not know of it. Not every neighbour of every winner was tried.
# - At the course's learning rate of `0.01` nothing is finished after 20 passes: tuned rates are up to thirty times higher.
# - Without T² the sum of the weights falls, too, as T rises. What alpha leaves unexplained may be that.
# - The finished teacher of section 2 learned at a lower rate than the one beside the student.
# - Six augmentations are few for a rank correlation, and live views were tried with crop and flip alone.
# - The learning rates of sections 4 and 5 were not tuned. Tail buckets were charged 16 bits and trained unrounded.
# - The curriculum here is one temperature for all images, which climbs by its own small step; the standard deviation of the
#   standardised logits is that of the authors' code.
# - The eight stored views are drawn once a seed; passes over them have up to thirty steps less (of 1,280).
# - The work counts multiply-adds. The course's teacher is there for free, and its answers are billed; those of section 5 are billed whole.
#
# ## Further
#
# ### Every piece of advice in one row
#
# Gain in points over the control, 95 % interval of ten paired seeds; the work is the multiply-adds of the training, the
# teacher's answers among them, over those of the control; last the same of ten other seeds, which decide with the first ten about the verdict and are used for nothing else. Capacity
# has none.

# %%
print(results.provenance("lesson07-schedules-tuned"))
lesson07_advice.shown(advice)

# %% [markdown]
# ### Whose batch norm?
#
# "Never share the statistics of batch norm", says one overview. A student in the form of its teacher can take them over. To take over the
# *running* statistics alone changes nothing that is trained: in training a norm uses those of the batch, and counts its own.

# %%
norms = results.read("lesson07-norms")
print(results.provenance("lesson07-norms"))
lesson07_advice.shown(advice[advice["topic"] == "batch norm"])

# %% [markdown]
# Taken to begin with, the teacher's norms change nothing that can be told. Frozen they cost three points; but freezing the student's *own* costs
# more than one, so part of the harm is the freezing and not the sharing.
#
# ## Glossary
#
# - **Schedule**: a value that changes over training. **Annealing**: one that falls.
# - **Rival**: here the constant, or the one stage, that a strategy has to beat with as many steps.
# - **View**: an image as augmentation has changed it.
# - **Spread of a teacher**: the standard deviation of its mean probability over groups of views.
# - **Tail bucket**: the probability of all classes that were not kept, as one outcome.
# - **Assistant**: a network of middle size between teacher and student.
#
# ## References
#
# - G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network. 2015, arXiv 1503.02531.
# - A. Jafari, M. Rezagholizadeh, P. Sharma, A. Ghodsi: Annealing Knowledge Distillation. 2021, arXiv 2104.07163.
# - Z. Li, X. Li, L. Yang, B. Zhao, R. Song, L. Luo, J. Li, J. Yang: Curriculum Temperature for Knowledge Distillation. 2023,
#   arXiv 2211.16231.
# - S. Sun, W. Ren, J. Li, R. Wang, X. Cao: Logit Standardization in Knowledge Distillation. 2024, arXiv 2403.01427.
# - A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio: FitNets: Hints for Thin Deep Nets. 2015, arXiv 1412.6550.
# - L. Beyer, X. Zhai, A. Royer, L. Markeeva, R. Anil, A. Kolesnikov: Knowledge Distillation: A Good Teacher is Patient and
#   Consistent. 2022, arXiv 2106.05237.
# - H. Wang, S. Lohit, M. Jones, Y. Fu: What Makes a "Good" Data Augmentation in Knowledge Distillation. 2022, arXiv 2012.02909.
# - E. D. Cubuk, B. Zoph, D. Mane, V. Vasudevan, Q. V. Le: AutoAugment: Learning Augmentation Policies from Data. 2018,
#   arXiv 1805.09501.
# - H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz: mixup: Beyond Empirical Risk Minimization. 2018, arXiv 1710.09412.
# - S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo: CutMix: Regularization Strategy to Train Strong Classifiers with
#   Localizable Features. 2019, arXiv 1905.04899.
# - S. I. Mirzadeh, M. Farajtabar, A. Li, N. Levine, A. Matsukawa, H. Ghasemzadeh: Improved Knowledge Distillation via Teacher
#   Assistant. 2020, arXiv 1902.03393.
# - J. H. Cho, B. Hariharan: On the Efficacy of Knowledge Distillation. 2019, arXiv 1910.01348.

# %%
# What this lesson claims, checked.
assert all(abs(gain.mean) < 0.01 for gain in ahead.values()) and ahead["three phases"].high < 0
assert all(abs(gap.mean) < 0.005 for gap in apart.values()), "without T² a schedule of T is one of alpha"
assert all(of_schedules.loc[words, "gain"].low <= 0 for words in tuned), "no tuned schedule is ahead of the tuned constant"
assert planned.loc[[f"T = {t}" for t in (3, 4, 5.5, 8, 12, 16)], "test"].groupby("plan").mean().agg(lambda m: m.max() - m.min()) < 0.005
stalled = results.read("lesson07-stages").query("start == 0.5 and step == 0.1 and rate == 0.01")["mean alpha"].mean()
nine = advice[advice["advice"] == "standardise the logits, weights 9 to 0.1"].iloc[0]
assert stalled < 0.55 and nine["gain"].low > 0 > nine["gain of other seeds"].low
verdicts = of_stages["verdict"].tolist()
assert verdicts == ["not told apart"] * 4 + ["hurts", "not told apart", "helps"] + ["not told apart"] * 2 + ["hurts"] * 2
assert -0.02 < gains["leave out T^2 and raise T from 1 to 8", "the same with T^2"].high < -0.005

# %%
assert metrics.paired_interval(hinted, plain).low > 0
of_targets = advice[advice["topic"] == "stored targets"].set_index("advice")["gain"]
of = {(row.advice, row.over): row.verdict for row in advice.itertuples()}
assert {name: of[f"{name}, with a teacher", "no augmentation"] for name in ("MixUp", "CutMix", "AutoAugment")} == dict.fromkeys(
    ("MixUp", "CutMix", "AutoAugment"), "helps") and of["MixUp, with labels", "no augmentation"] == "hurts"
assert all(of[f"{name}, with labels", "no augmentation"] == "helps" for name in ("CutMix", "AutoAugment"))
assert all(seen.loc[name, "accuracy"].mean() > blind.loc[name, "accuracy"].mean() for name in others)
assert all(of[f"crop and flip, with {whom}", "no augmentation"] != "helps" for whom in ("a teacher", "labels"))
assert all(of_targets[f"keep {bits}"].low < 0 < of_targets[f"keep {bits}"].high for bits in ("16 bits", "8 bits"))
assert of_targets["keep the top 3, tail bucket"].low > of_targets["keep the top 3, renormalised"].high
assert of_targets["keep the top 3, zero-filled"].high < of_targets["keep the top 1, zero-filled"].low
assert of_targets["store 1 view an image"].high < 0 and of_targets["store 8 views an image"].high > 0
sized = {row.advice + row.over: row.gain for row in of_capacity.itertuples()}
assert all(gain.low > 0 for words, gain in sized.items() if words.endswith("1,000 imageslabels"))
assert all(gain.low < 0 < gain.high for words, gain in sized.items() if "assistant" in words or words.endswith("as large"))
assert all(gain.high < 0 for words, gain in sized.items() if words.endswith("9,000 imageslabels for four times as long"))
assert all(gain.low > 0 for words, gain in sized.items() if words.endswith("1,000 imageslabels for four times as long"))
assert [verdict for verdict in advice[advice["topic"] == "batch norm"]["verdict"]] == ["hurts", "not told apart", "hurts"]
