# %% [markdown]
# # 09 · Without labels, without data, without a bigger teacher
#
# **What remains of distillation without labels, data or a larger teacher?**
#
# So far a large teacher taught a small student on real images. Here each of these goes missing: the larger teacher (sections 1 and 2),
# the labels (3), the images (4), most of them (5). For each there are papers with large gains. We repeat the smallest version, and beside it the
# dullest thing that might explain the gain.
#
# **Objectives.** After this lesson you will be able to
#
# - train generations of a network and say whether it was the teacher that helped;
# - let two networks teach each other, and combine several teachers;
# - learn an embedding from unlabelled images, and find a teacher that was fed the wrong numbers;
# - make images from a teacher alone, and name the control that such results need;
# - say what a soft label is worth where images are few.
#
# **Prerequisites.** Lessons 01 to 04: loss, temperature, alpha, features, and paired intervals over seeds.
#
# **Time.** About 70 minutes, nearly half of them for five exercises; the cells run in about two minutes on 2 cores.

# %% tags=["parameters", "projector"]
profile = None

# %% tags=["projector"]
import functools

import pandas
import torch
from IPython.display import display
from matplotlib.figure import Figure

from kdlib import data, datafree, losses, metrics, models, peers, teachers, training
from kdlib.data.augment import random_crop_flip
from kdlib.data.noise import with_wrong_labels
from kdlib.datafree import generator, inversion
from kdlib.datafree import shelf as made_from_teacher
from kdlib.experiments import lesson09_embeddings, lesson09_gains, lesson09_ladder, lesson09_two
from kdlib.inference import predict_logits
from kdlib.lesson import figures, laboratory, plots, profiles, results, widgets
from kdlib.lesson.exercises import check, hint, mine, solution
from kdlib.lesson.predictions import predict
from kdlib.tasks import shelf

# %% tags=["projector"]
profile = profiles.get(profile)
figures.use_style()
pandas.set_option("display.max_colwidth", 100, "display.max_rows", 200)
torch.set_num_threads(1)
dataset, teacher = data.load("fashion-mnist"), teachers.load("fashion-mnist")
seeds = range(profile.choose(ci=1, lesson=2, full=10))
images, judges, passes = profile.choose(ci=(100, 200, 1), lesson=(1000, 2000, 10), full=(1000, 10_000, 20))
test = dataset.test.take(judges, seed=0)
some = {seed: dataset.train.take(images, seed=seed) for seed in seeds}
settings = {"epochs": passes, "learning_rate": 0.06, "progress": False}
gains = lesson09_gains.rows()

# %% [markdown]
# ## 1. Teaching oneself
#
# A network learns from labels; a second one *of the same kind* learns from the first, a third from the second. Furlanello et al. (2018) call
# them **born-again** networks, and report that later generations are better, without any larger teacher. And
# where labels are wrong, a first network may refine them for the next (Bagherinezhad et al. 2018).
#
# > **Which distillation do you mean?** The word names five things. *Model* distillation, ours: a student learns a teacher's answers. *Self*-distillation:
# > the teacher is no larger (this section), or is a moving average of the student itself, without labels, as in DINO (Caron et al. 2021). *Dataset* distillation:
# > few images stand for many (section 5). *Step* distillation: a diffusion model learns to need fewer steps. *Policy* distillation: an agent
# > learns another agent's actions.
#
# ### Exercise: repair a sequence of generations

# %% exercise="repair_generations"

# %% tags=["projector"]
clean_prediction = predict(
    "All labels right, 1,000 images, all tuned: how far is generation 3 ahead of labels alone?",
    {"behind by more than a point": (None, -1), "less than one point apart": (-1, 1), "ahead by one to three": (1, 3), "ahead by more": (3, None)})
noisy_prediction = predict(
    "40 of 100 labels wrong: how far is generation 1 ahead of labels alone?",
    {"behind": (None, 0), "ahead by up to two points": (0, 2), "ahead by two to six": (2, 6), "ahead by more": (6, None)})
stopped_prediction = predict(
    "And how far is generation 1 ahead of labels alone that were trained a third as long?",
    {"behind by more than half a point": (None, -0.5), "less than half a point apart": (-0.5, 0.5), "ahead by more": (0.5, None)})
display(clean_prediction, noisy_prediction, stopped_prediction)

# %% [markdown]
# Now run your sequence; four labels in ten are replaced by another class. Networks are judged on right labels.

# %%
born_again = mine("repair_generations", repair_generations)


def born(numbers):
    return models.build("tiny-cnn", seed=next(numbers))  # another seed for each


def learn(network, noisy, seed, epochs=passes):
    training.train(network, noisy, seed=seed, **settings | {"epochs": epochs})


def copy_answers(student, taught_by, noisy, seed):
    training.distill(student, taught_by, noisy, seed=seed, alpha=1, temperature=1, **settings)


for seed in seeds:
    given = {"noisy": with_wrong_labels(some[seed], 0.4, seed=1000 + seed), "seed": seed}
    build = functools.partial(born, iter(range(seed, 1000, 100)))
    all_four = born_again(build, functools.partial(learn, **given), functools.partial(copy_answers, **given), 3)
    learn(shorter := build(), **given, epochs=max(1, passes // 3))
    right = [f"{metrics.accuracy(network, test):.1%}" for network in (*all_four, shorter)]
    print(f"seed {seed}: generations 0 to 3: {', '.join(right[:4])}; labels a third as long: {right[4]}")

# %% [markdown]
# In a few passes hardly any wrong label is learned by heart. The recorded runs take twenty: ten seeds, each arm with the settings that are best on rightly labelled validation
# images; generations 2 and 3 inherit those of generation 1.

# %% tags=["projector"]
clean_prediction.compare(lesson09_gains.gain("self", "generation 3", "labels", "0% wrong labels"))

# %% tags=["projector"]
noisy_prediction.compare(lesson09_gains.gain("self", "generation 1", "labels", "40% wrong labels"))

# %% tags=["projector"]
stopped_prediction.compare(lesson09_gains.gain("self", "generation 1", "labels, a third as long", "40% wrong labels"))

# %% tags=["projector", "figure"]
generations_table = results.read("lesson09-self").set_index(["wrong", "arm", "seed"]).sort_index()
SHOWN = ["labels", "labels, as long as all generations", "labels, a third as long", "labels, a tenth as long", "labels, smoothed",
         "labels, smoothed, a third as long", "generation 1", "generation 2", "generation 3", "generation 1, hard answers",
         "generation 1 of labels a third as long", "the course's teacher"]


def draw_generations(figure):
    axes = figure.subplots()
    places, colour = range(len(SHOWN)), {"color": figures.COLOURS["student"]}
    dots, bars = axes.plot([0] * len(SHOWN), places, "o", **colour)[0], axes.hlines(places, 0, 0, **colour)
    axes.set(xlim=(45, 87), xlabel="test accuracy (%)", ylim=(len(SHOWN) - 0.5, -0.5))
    axes.set_yticks(places, SHOWN)
    title = figure.suptitle(" ")

    def update(*, wrong_labels):
        means = [plots.mean_interval(100 * generations_table.loc[(wrong_labels / 100, arm), "accuracy"]) for arm in SHOWN]
        dots.set_xdata([mean.mean for mean in means])
        bars.set_segments([[(mean.low, place), (mean.high, place)] for place, mean in enumerate(means)])
        title.set_text(f"{wrong_labels} of 100 labels are wrong")
        return [dots, bars, title]

    return update

# %% tags=["figure"]
print(results.provenance("lesson09-self"))
display(generations_table.loc[0.4, "believed"].groupby("arm").mean().reindex(SHOWN).rename("of the wrong labels believed").round(2).to_frame())
widgets.twin(draw_generations, {f"{wrong} of 100 wrong": {"wrong_labels": wrong} for wrong in (0, 40)}, columns=1, size=(9.5, 3.8),
             caption="test accuracy, mean and 95 % interval of ten seeds; 'hard answers': the class that generation 0 takes for the likeliest, as a label. Compare the generations with 'labels, a third as long'.")

# %% tags=["projector", "figure"]
widgets.strip(draw_generations, wrong_labels=[0, 40], size=(9.5, 4), caption="the same with a slider.")

# %% [markdown]
# **What this says.** Where labels are right, no generation gains anything that both sets of ten seeds agree on. *Smoothed* labels, which need no teacher, gain nearly a point.
# Where labels are wrong, generation after generation is ahead of the one before: a network that learned some wrong labels by heart passes on fewer than it was given. It looks as if labels were refined.
#
# Now the dull explanation. A network learns what is regular first and what is wrong last. Labels for a third of the passes are ahead of generation 1, and not told apart from generation 3; for as long as all generations
# took together they are far worse. *Smooth and stop early*: that is ahead of every generation, also of one taught by a network that stopped early. A teacher that never saw the wrong labels adds more than three times what generations add.
#
# **Exits.** Zhang et al. (2019) let the *end* of a network teach its own earlier exits, small classifiers behind each stage, in the same steps. Who is short of time takes
# an early answer. The control is labels at every exit, *deep supervision*, which costs as much.

# %%
for seed in seeds:
    for words, alpha in {"labels at every exit": 0, "taught by the last exit": 0.3}.items():
        torch.manual_seed(seed)
        network = peers.ExitCNN()
        training.train(network, some[seed], task_loss=functools.partial(peers.exits_loss, exits=3, alpha=alpha, temperature=1), seed=seed, **settings)
        right = [f"{metrics.accuracy(logits, test):.1%}" for logits in peers.apart(predict_logits(network, test), 3)]
        print(f"seed {seed}, {words:24}exits 1 to 3: {', '.join(right)}")

# %% tags=["projector", "figure"]
print(results.provenance("lesson09-exits"))
lesson09_gains.shown(gains.query("topic == 'exits'"))

# %% [markdown]
# What is the last exit worth as a teacher? Nothing that ten seeds, and ten others, can tell, at any exit, trained once or three times as long. What does help the first exit is to train three times as long.
# The paper also matches features; we do not.
#
# ## 2. Peers, and several teachers
#
# Two students with different first weights learn side by side. Each has its labels, and besides copies what the other says at that moment: **mutual learning**
# (Zhang et al. 2018). For the first of them
#
# $$L_1 = \mathrm{CE}(z_1, y) + \mathrm{KL}(p_2 \,\Vert\, p_1)$$
#
# with logits $z$, labels $y$ and probabilities $p$; for the second the same with both exchanged.
#
# ### Exercise: a loss for two who teach each other

# %% exercise="mutual_loss"

# %% tags=["projector"]
mutual_prediction = predict(
    "Both tuned: how far is one of two mutual learners ahead of the same network alone?",
    {"behind": (None, 0), "ahead by up to half a point": (0, 0.5), "ahead by half a point to two": (0.5, 2), "ahead by more": (2, None)})
together_prediction = predict(
    "Two that learned *alone* are asked together (mean of their probabilities). How far is one mutual learner ahead of these two?",
    {"behind by more than a point": (None, -1), "less than one point apart": (-1, 1), "ahead by more": (1, None)})
display(mutual_prediction, together_prediction)

# %% [markdown]
# The pair is trained as one network whose logits stand side by side, in the loop that you know; two that learn alone are the control:

# %%
own_mutual = mine("mutual_loss", mutual_loss)
ways = {"mutual, yours": lambda logits, labels: own_mutual(*peers.apart(logits, 2), labels),
        "each alone": functools.partial(peers.alone_loss, members=2)}
for way, loss in ways.items():
    for seed in seeds:
        pair = peers.SideBySide([models.build("tiny-cnn", seed=own) for own in (seed, 500 + seed)])
        training.train(pair, some[seed], task_loss=loss, seed=seed, **settings)
        first, second = peers.apart(predict_logits(pair, test), 2)
        print(f"{way:15}seed {seed}: first {metrics.accuracy(first, test):.1%}, second {metrics.accuracy(second, test):.1%}, "
              f"both together {metrics.accuracy(teachers.combine([first, second]), test):.1%}")
trial = torch.randn(8, 20, generator=torch.Generator().manual_seed(0)), torch.arange(8)
assert torch.allclose(ways["mutual, yours"](*trial), peers.mutual_loss(*trial, members=2), rtol=1e-4)  # from here on the library's

# %% tags=["projector"]
mutual_prediction.compare(lesson09_gains.gain("peers", "mutual", "alone", "one of the two"))

# %% tags=["projector"]
together_prediction.compare(lesson09_gains.gain("peers", "mutual", "alone", "one of the two, over two that learned alone"))

# %% tags=["projector", "figure"]
print(results.provenance("lesson09-peers"))
display(results.read("lesson09-peers").groupby("arm", sort=False)[["accuracy", "ece", "both", "agreement"]].mean()
        .rename(columns={"ece": "calibration error", "both": "accuracy of both together", "agreement": "both agree"}).round(3))
lesson09_gains.shown(gains.query("topic == 'peers'"))

# %% [markdown]
# **What this says.** A mutual learner is about a point ahead of the same network alone, and not told apart from two that learned alone, asked together: the price of two is paid only in training. (Recorded is a KL
# at temperature 30, not yours at 1.) Twice as long alone gains nothing, nor does a *finished* peer as teacher, as far as can be told. But one of smoothed labels is not told apart from it, and two of them together are ahead of two mutual learners,
# who agree more and have less to add. Yet look at the calibration error in the first table: strongly smoothed labels ruin it, peers mend it.
#
# **Several teachers.** Three hospitals have 3,000 labelled images each, which must not be shared; each trains a teacher. A student gets 1,000 of the 9,000 images and the three
# teachers' answers: the mean of probabilities, the mean of logits, the sum of three losses, or one teacher at a time. Mind that each image was in the training of one of the three.

# %%
three = [shelf.load(name) for name in ("third 1", "third 2", "third 3")]
for seed in seeds:
    of_three = [teachers.cached_logits(one, some[seed]) for one in three]
    sources = {"labels": None, "one teacher": of_three[0], "mean of probabilities": teachers.combine(of_three),
               "mean of logits": teachers.combine(of_three, by="logits")}
    for source, logits in sources.items():
        student = models.build("tiny-cnn", seed=seed)
        if logits is None:
            training.train(student, some[seed], seed=seed, **settings)
        else:
            training.distill(student, logits, some[seed], alpha=1, seed=seed, **settings)
        print(f"seed {seed}, {source:23}accuracy {metrics.accuracy(student, test):.1%}, calibration error {metrics.calibration_error(student, test):.3f}")

# %% tags=["projector", "figure"]
print(results.provenance("lesson09-several"))
lesson09_gains.shown(gains.query("topic == 'several'"))

# %% [markdown]
# One teacher with 3,000 labels of its own is several points ahead of labels, and three are about a point ahead of one. The mean of logits names a little more right than the mean of probabilities, the
# usual ensemble; but the student of the latter is better calibrated. (All at one temperature and rate: calibration depends on both.)
# Did it help that one of the three had learned each image by heart? Leave that one out: one that has not seen the image is not told apart from any one, and two outsiders are ahead of one.
#
# ## 3. Embeddings without labels
#
# Much distilled in vision today are *embeddings*, the numbers before the last layer of a large network, copied by a small one on images that nobody has labelled
# (Oquab et al. 2023 made their small DINOv2 models so). Labels come later, and few: a linear classifier on the frozen embedding, a **linear probe**, or
# the label of the nearest neighbour.
#
# ### Exercise: the nearest label

# %% exercise="nearest_labels"

# %% tags=["projector"]
few_prediction = predict(
    "100 labels: how far is a linear probe on a student's embedding ahead of a network that learned from the 100, augmented?",
    {"behind": (None, 0), "ahead by up to five points": (0, 5), "ahead by five to twenty": (5, 20), "ahead by more": (20, None)})
normal_prediction = predict(
    "The same student, but its teacher was fed images normalised by ImageNet's mean and std. What does that change, with 100 labels?",
    {"it costs more than ten points": (None, -10), "it costs one point to ten": (-10, -1), "less than a point, or it gains": (-1, None)})
display(few_prediction, normal_prediction)

# %% [markdown]
# The student's output is its embedding, as wide as the teacher's, and is trained as logits would be. **Standardised** means that each number of the
# teacher's is given mean 0 and standard deviation 1 over the images.

# %%
nearest = mine("nearest_labels", nearest_labels)
pool = dataset.train.take(profile.choose(ci=300, lesson=6000, full=9000), seed=0)
hundred = dataset.train.take(100, seed=0)
for arm in ("standardised", "standardised, untrained teacher", "ImageNet's"):
    said = lesson09_embeddings.pooled(lesson09_embeddings.teacher_of(arm), pool)
    torch.manual_seed(0)
    student = models.TinyCNN(said.shape[1])
    training.distill(student, lesson09_embeddings.standardised(said), pool, alpha=1, loss=losses.logit_mse_loss, **settings | {"epochs": 3})
    of_known, of_test = predict_logits(student, hundred), predict_logits(student, test)
    by_probe = lesson09_embeddings.probe(of_known, hundred.labels, of_test)
    for way, answers in {"nearest, yours": nearest(of_test, of_known, hundred.labels), "linear probe": by_probe}.items():
        print(f"{arm:33}{way:16}{(answers == test.labels).float().mean():.1%}")
alone = models.build("tiny-cnn", seed=0)
training.train(alone, hundred, seed=0, augment=random_crop_flip(), **settings | {"epochs": 10 * passes})
print(f"100 labels alone, augmented: {metrics.accuracy(alone, test):.1%}")

# %% tags=["projector"]
few_prediction.compare(lesson09_gains.gain("embeddings", "standardised", "hard labels, views", "100 labels"))

# %% tags=["projector"]
normal_prediction.compare(lesson09_gains.gain("embeddings", "ImageNet's", "standardised", "100 labels"))

# %% tags=["projector", "figure"]
embedded = results.read("lesson09-embeddings").set_index(["arm", "seed"]).sort_index()
few = results.read("lesson09-few").set_index(["a_class", "arm", "seed"]).sort_index()
COUNTS = lesson09_embeddings.COUNTS
LINES = {"the teacher's own": "teacher", "standardised": "student", "standardised, teacher of angles": "other", "raw pixels": "muted",
         "standardised, untrained teacher": "mix"}


FED, ALONE = "standardised, its teacher fed as above", "labels alone, augmented"
STYLES = {name: {"color": figures.COLOURS[role]} for name, role in LINES.items()}
STYLES |= {FED: {"color": figures.COLOURS["student"], "linestyle": ":"}, ALONE: {"color": figures.COLOURS["label"]}}


def probed(normalisation):
    """By line: for each number of labels, the accuracies of ten seeds."""
    arms = {name: name for name in LINES} | {FED: "standardised" if normalisation == "its own" else normalisation}
    found = {line: [embedded.loc[arm, f"probe {count}"] for count in COUNTS] for line, arm in arms.items()}
    return found | {ALONE: [few.loc[(count // 10, "hard labels, views"), "accuracy"] for count in COUNTS]}

# %% tags=["projector", "figure"]
def draw_embeddings(figure):
    axes = figure.subplots()
    move = plots.intervals(axes, COUNTS, probed("its own"), styles=STYLES, dodge=7)
    axes.set(xscale="log", xlim=(8, 1300), ylim=(20, 100), xlabel="labels", ylabel="test accuracy (%)")
    axes.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
    axes.minorticks_off()
    plots.legend(figure)
    title = figure.suptitle(" ")

    def update(*, normalisation):
        title.set_text(f"the teacher's images are normalised by: {normalisation}")
        return [*move(probed(normalisation)), title]

    return update

# %% tags=["figure"]
print(results.provenance("lesson09-embeddings"))
widgets.twin(draw_embeddings, {name: {"normalisation": name} for name in ("its own", "ImageNet's")}, columns=1, size=(9, 3.8),
             caption="linear probes over the number of labels, and labels alone; ten seeds. See how far the dotted line falls, and where raw pixels lie.")

# %% tags=["projector", "figure"]
widgets.strip(draw_embeddings, normalisation=["its own", *lesson09_embeddings.NORMALISED], size=(9, 4), caption="the same with a slider over what the teacher was fed.")

# %% [markdown]
# **What this says.** The student's embedding is far ahead of labels alone, most where labels are fewest, and clearly with a thousand; cosine and squared error differ little from it. An untrained teacher's embedding is worse than raw pixels, so it is
# what the teacher knows. But where does it know it from? From 60,000 *labels*, those of these images too. Its *answers*, copied without any label (section 4), are as good as a probe with a thousand.
# The honest case is a teacher that never saw a class, lesson 08's for angles: ahead with ten labels; with a hundred behind augmented labels, and behind raw pixels.
#
# And feed the teacher the wrong numbers: no error, no warning, and most of the gain over raw pixels is gone. Look at the teacher's own accuracy on what it is fed before you distil.
#
# **Two teachers of different scale.** One student shall keep two embeddings: of the course's teacher, for *what* an item is, and of lesson 08's teacher of angles, for how far it is
# turned. Ranzinger et al. (2024) saw that the squared error then learns the louder teacher. How loud are ours?

# %%
sizes = dict(zip(("pool", "judges", "epochs"), profile.choose(ci=(300, 200, 1), lesson=(6000, 2000, 3), full=(9000, 4000, 6)), strict=True))
of_items, of_angles = lesson09_two.targets(sizes["pool"], sizes["judges"])
print(f"variance of the numbers: teacher of items {of_items.var(0).mean():.3f}, teacher of angles {of_angles.var(0).mean():.4f}")
pandas.DataFrame({arm: lesson09_two.on_split(arm, 0.06, 0, "test", **sizes) for arm in lesson09_two.GRIDS}).T.round(3)

# %% tags=["projector", "figure"]
print(results.provenance("lesson09-two"))
lesson09_gains.shown(gains.query("topic == 'two'"))

# %% [markdown]
# As they are, the student serves the louder teacher: *met*, the share of a teacher's variance that it gives back, is little more than half for angles, and clearly more when both are standardised; a linear probe then reads the angle better by degrees,
# and names items as often.
#
# ## 4. Without data
#
# The teacher is there, its training images are private, or lost. What can its answers be copied *on*? A ladder of images, from noise to real ones. The student gets no label on any rung
# (alpha = 1), and is tested on real garments.
#
# - **Substitutes** at hand: noise, real images with shuffled pixels, handwritten digits, patches of two photographs, glyphs of the fonts that Matplotlib ships.
# - **Inverted** images (Yin et al. 2020): pixels are moved until the teacher is sure of a class. What keeps them from being noise is that each batch norm of the teacher
#   remembers the mean $\hat\mu$ and variance $\hat\sigma^2$ of each channel over its training images; with $\mu$ and $\sigma^2$ those of the new images, each adds
#
# $$R = \lVert \mu - \hat\mu \rVert_2 + \lVert \sigma^2 - \hat\sigma^2 \rVert_2$$
#
# - **Generated** images (Chen et al. 2019): a network that makes such images from random numbers. Besides the same statistics it is asked that the teacher is sure of each image,
#   and that all classes occur.
#
# How many classes does a rung reach in the teacher's eyes? With $m_c$ the mean probability of class $c$ over all images, the **effective number of classes** is $\exp(-\sum_c m_c \log m_c)$.

# %%
# NBVAL_CHECK_OUTPUT
for words, logits in {"always the same class": torch.tensor([[20.0, 0, 0]] * 9), "three, equally often": 20 * torch.eye(3),
                      "never sure of anything": torch.zeros(9, 3)}.items():
    print(f"{words:24}{datafree.effective_classes(logits):.2f} effective classes")

# %% [markdown]
# ### Exercise: what the batch norms remember

# %% exercise="statistics_loss"

# %% tags=["projector"]
glyph_prediction = predict(
    "9,000 glyphs of fonts, rates and temperature tuned: how often is the student right on garments? (Guessing: 10 %.)",
    {"up to 15 %": (0, 15), "15 to 30 %": (15, 30), "30 to 50 %": (30, 50), "50 to 75 %": (50, 75), "more": (75, 100)}, unit="%")
generated_prediction = predict(
    "And how far are 9,000 images of the generator, which was trained against this very teacher, ahead of the glyphs?",
    {"behind by more than five points": (None, -5), "less than five points apart": (-5, 5), "ahead by five to twenty": (5, 20), "ahead by more": (20, None)})
real_prediction = predict(
    "And 9,000 real images without labels, over the same images with labels?",
    {"behind": (None, 0), "ahead by up to one point": (0, 1), "ahead by one to three": (1, 3), "ahead by more": (3, None)})
display(glyph_prediction, generated_prediction, real_prediction)

# %% [markdown]
# Use yours for twenty images inverted here, and for last steps of the generator that ships.

# %%
own_statistics = mine("statistics_loss", statistics_loss)
steps, noise = profile.choose(ci=(3, 100), lesson=(150, 3000), full=(1000, 20_000))
twenty = inversion.invert(teacher, torch.arange(20) % 10, like=dataset, steps=steps, learning_rate=0.1, statistics=300, statistics_term=own_statistics)
maker = made_from_teacher.generator()  # noise goes in, images come out, the frozen teacher judges them
with generator.DataFreeLoss(teacher, statistics_term=own_statistics) as loss:
    history = training.train(generator.AgainstTeacher(maker, teacher), generator.latent(noise, seed=2), task_loss=loss, epochs=1,
                             batch_size=100, learning_rate=3e-4, progress=False, bfloat16=False)
maps = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
assert torch.allclose(own_statistics(maps, torch.zeros(3), torch.ones(3)), inversion.statistics_loss(maps, torch.zeros(3), torch.ones(3)))

# %% tags=["figure"]
rungs = {arm: lesson09_ladder.rung(arm, 10, 0).images[:10] for arm in lesson09_ladder.RUNGS if arm != "inverted"}
shown = {**{arm: rungs[arm] for arm in ("noise", "shuffled pixels", "digits", "photographs", "glyphs")}, "inverted, shipped": made_from_teacher.inverted()[:10],
         "inverted, just now": twenty[:10], "generated, shipped": rungs["generated"], "after your steps": generator.generated(maker, 10, seed=0),
         "real": rungs["real, unlabelled"]}
figure = Figure(figsize=(9, 8.2), layout="constrained")
for axes, (name, ten) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
    axes.imshow(torch.cat(list(ten[:, 0]), dim=1), cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.set(xticks=[])
    axes.set_yticks([14], [name])
    axes.tick_params(length=0)
figures.show(figure, caption="ten images of each rung; the column of an inverted image is the class that was asked for. In which rows do you recognise a garment?")

# %%
for seed in seeds:
    sources = {arm: lesson09_ladder.rung(arm, images, seed) for arm in ("noise", "digits", "glyphs", "real, unlabelled")}
    sources |= {"generated, after your steps": datafree.unlabelled(generator.generated(maker, images, seed=seed), dataset)}
    for source, split in sources.items():
        said, student = teachers.cached_logits(teacher, split), models.build("tiny-cnn", seed=seed)
        training.distill(student, said, split, alpha=1, seed=seed, **settings)
        print(f"seed {seed}, {source:29}{datafree.effective_classes(said):4.1f} effective classes, accuracy {metrics.accuracy(student, test):.1%}")

# %% tags=["projector"]
ladder = results.read("lesson09-ladder").set_index(["images", "arm", "seed"]).sort_index()
glyph_prediction.compare(plots.mean_interval(ladder.loc[(9000, "glyphs"), "accuracy"]))

# %% tags=["projector"]
generated_prediction.compare(lesson09_gains.gain("ladder", "generated", "glyphs", "9,000 images"))

# %% tags=["projector"]
real_prediction.compare(lesson09_gains.gain("ladder", "real, unlabelled", "real, labels", "9,000 images"))

# %% tags=["projector", "figure"]
STEPS = ["noise", "shuffled pixels", "photographs", "digits", "glyphs", "inverted", "generated", "real, unlabelled", "real, labels"]


def draw_ladder(figure):
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places = range(len(STEPS))
    dots, bars = left.plot([0] * len(STEPS), places, "o", color=figures.COLOURS["student"])[0], left.hlines(places, 0, 0, color=figures.COLOURS["student"])
    classes = right.plot([0] * len(STEPS), places, "o", color=figures.COLOURS["teacher"])[0]
    left.axvline(10, color=figures.COLOURS["muted"], linestyle=":")
    left.set(xlim=(0, 100), xlabel="test accuracy (%)", ylim=(len(STEPS) - 0.5, -0.5))
    left.set_yticks(places, STEPS)
    right.set(xlim=(0, 10.5), xlabel="effective classes")
    right.tick_params(labelleft=False)
    title = figure.suptitle(" ")

    def update(*, images):
        there = [arm if (images, arm) in ladder.index else None for arm in STEPS]
        means = [plots.mean_interval(100 * ladder.loc[(images, arm), "accuracy"]) if arm else None for arm in there]
        dots.set_xdata([mean.mean if mean else float("nan") for mean in means])
        bars.set_segments([[(mean.low, place), (mean.high, place)] for place, mean in enumerate(means) if mean])
        classes.set_xdata([ladder.loc[(images, arm), "classes"].mean() if arm else float("nan") for arm in there])
        title.set_text(f"{images:,} images of each rung")
        return [dots, bars, classes, title]

    return update

# %% tags=["figure"]
print(results.provenance("lesson09-ladder"))
widgets.twin(draw_ladder, {f"{images:,}": {"images": images} for images in (1000, 9000)}, columns=1, size=(9, 3.4),
             caption="accuracy on real garments (dotted: chance) and how many classes the rung reaches in the teacher's eyes; ten seeds. Of inverted images a thousand ship.")

# %% tags=["projector", "figure"]
widgets.strip(draw_ladder, images=[1000, 9000], size=(9, 3.6), caption="the same with a slider over the number of images.")

# %% [markdown]
# **What this says.** Noise, shuffled pixels and photographs teach next to nothing, digits a little. Glyphs, which nobody made for garments, teach enough to be right in four of ten cases. And the generator, which was trained against this very teacher? Where both have 9,000 images it is not told apart from
# the glyphs. With 1,000 it is ahead of them, and inverted images more so. Ask for such a rung of *other images* in every paper on this. All stay far below real images, on which the teacher's answers, without a label, are ahead of labels.
#
# Does a rung fail because it reaches too few classes? Not alone: generated images reach all ten, as real ones do, and their student is right half as often.
#
# ## 5. Few images
#
# Dataset distillation asks for a handful of images that train a network as well as all of them. Much of what such sets achieve comes from the *soft labels* beside them: with soft labels,
# random real images come close (Qin et al. 2024). So take random images, 1 to 100 a class: with hard labels, with a soft label each, and with *views*, the image shifted by up to two
# pixels or mirrored, each with the image's label, hard or soft, or a soft one of its own.

# %% tags=["projector"]
soft_prediction = predict(
    "One image a class, a soft label each, no augmentation: how far ahead of hard labels?",
    {"behind by more than four points": (None, -4), "less than four points apart": (-4, 4), "ahead by four to twelve": (4, 12), "ahead by more": (12, None)})
view_prediction = predict(
    "Five images a class, a soft label a view: how far ahead of hard labels with the same views?",
    {"behind": (None, 0), "ahead by up to two points": (0, 2), "ahead by two to eight": (2, 8), "ahead by more": (8, None)})
display(soft_prediction, view_prediction)

# %%
epochs = profile.choose(ci=1, lesson=100, full=300)
seen = {"augment": random_crop_flip(), "views": profile.choose(ci=1, lesson=50, full=80)}
for a_class in (1, 5):
    for seed in seeds:
        few_images = dataset.train.take(10 * a_class, seed=seed)
        common = {"epochs": epochs, "learning_rate": 0.06, "seed": seed, "progress": False}
        students = {way: models.build("tiny-cnn", seed=seed) for way in ("hard", "hard, views", "soft", "soft, views")}
        training.train(students["hard"], few_images, **common)
        training.train(students["hard, views"], few_images, **common, **seen)
        training.distill(students["soft"], teacher, few_images, alpha=1, **common)
        training.distill(students["soft, views"], teacher, few_images, alpha=1, **common, **seen)
        print(f"{a_class} a class, seed {seed}: " + ", ".join(f"{way} {metrics.accuracy(student, test):.1%}" for way, student in students.items()))

# %% tags=["projector"]
soft_prediction.compare(lesson09_gains.gain("few", "a soft label", "hard labels", "1 a class"))

# %% tags=["projector"]
view_prediction.compare(lesson09_gains.gain("few", "a soft label a view", "hard labels, views", "5 a class"))

# %% tags=["projector", "figure"]
WAYS = {"hard labels": "label", "hard labels, views": "other", "a soft label": "muted", "a soft label for all views": "student", "a soft label a view": "teacher"}
A_CLASS = sorted(few.index.unique("a_class"))


def draw_few(figure):
    axes = figure.subplots()
    places, colours = range(len(WAYS)), [figures.COLOURS[role] for role in WAYS.values()]
    dots, bars = axes.scatter([0] * len(WAYS), places, c=colours, s=60), axes.hlines(places, 0, 0, color=colours)
    axes.set(xlim=(20, 90), xlabel="test accuracy (%)", ylim=(len(WAYS) - 0.5, -0.5))
    axes.set_yticks(places, WAYS)
    title = figure.suptitle(" ")

    def update(*, images_a_class):
        means = [plots.mean_interval(100 * few.loc[(images_a_class, way), "accuracy"]) for way in WAYS]
        dots.set_offsets([(mean.mean, place) for place, mean in enumerate(means)])
        bars.set_segments([[(mean.low, place), (mean.high, place)] for place, mean in enumerate(means)])
        title.set_text(f"{images_a_class} images a class")
        return [dots, bars, title]

    return update

# %% tags=["figure"]
print(results.provenance("lesson09-few"))
widgets.twin(draw_few, {f"{a_class} a class": {"images_a_class": a_class} for a_class in (1, 10, 50, 100)}, columns=2, size=(6, 2.6),
             caption="test accuracy, mean and 95 % interval of ten seeds; a view is the image shifted by up to two pixels, or mirrored. Compare 'a soft label' with 'hard labels, views'.")

# %% tags=["projector", "figure"]
widgets.strip(draw_few, images_a_class=A_CLASS, size=(9, 2.8), caption="the same with a slider over the images a class.")

# %% [markdown]
# **What this says.** One image a class: a soft label is worth nothing that can be told. With five or ten it is worth points; fifty a class with soft labels beat a hundred with hard ones. But to shift and mirror the image, with its *hard* label, is worth more where images
# are fewest. Both together are best up to twenty a class: at every number the views' soft labels are ahead of their hard ones. Must each view have its own answer? One for all views is ahead with one image a class, and a little behind with ten. And with a hundred a class and twenty
# passes the same views cost points, whatever the label.
#
# ## 6. What carries over, and an experiment of your own
#
# | what is missing | what takes its place | the control that is easily forgotten |
# |:--|:--|:--|
# | a larger teacher | the generation before | labels, stopped earlier; smoothed labels |
# | a finished teacher | a peer | two that learned alone, asked together |
# | one teacher | several | one of them |
# | labels | a teacher's embedding | raw pixels; an untrained teacher |
# | images | inverted, generated | other real images: glyphs |
# | most images | a soft label a view | hard labels with the same views |
#
# ### Exercise: an experiment of your own
#
# The laboratory has two teachers, the course's and a network like the student that learned from the student's own images, and replaces as many labels as you say. `check` judges the design.

# %%
sources = {"the course's": laboratory.course_teacher, "a network like the student": laboratory.own_generation}
lab = laboratory.Laboratory(profile, teachers=sources, wrong_labels=True)

# %% exercise="my_teacherless_experiment"

# %%
interval = mine("my_teacherless_experiment", my_teacherless_experiment)(lab)
print(lab, f"the difference on the test images: {plots.points(metrics.Interval(*interval))}", sep="\n")

# %% [markdown]
# ## Summary
#
# - A teacher of the student's own kind teaches nothing that can be told where labels are right. Where they are wrong it helps; smoothing and stopping early helps more.
# - Each of two that learn together is as good as two that learned alone together, as far as can be told; so are strongly smoothed labels, but not in calibration.
# - Several teachers are ahead of one. The mean of logits is a little more often right, the mean of probabilities better calibrated.
# - An embedding without labels is worth what its teacher knows. Standardise where two teachers are to be heard, and feed each the numbers that it was trained on.
# - Images made from a teacher are worth something; compare them with other real images before you believe that making them was.
# - Where images are few, a soft label beside augmentation is best, and augmentation alone is the control.
#
# ### What is honest here, and what is not
#
# - The course's teacher learned from 60,000 labelled images; all of ours are among them, the validation images too. "Without labels" means the student's. On images new to both it would be
#   right a little less often.
# - Settings were chosen on right, real, labelled validation images, also for wrong labels and "without data", where nobody has any. Arms of a teacher had more settings than labels; generations 2 and 3 and the longer taught exits inherit theirs.
# - One generator, one set of inverted images, one teacher of each kind: intervals know of students' seeds only. The generator and the inverted images were made on a GPU; their manifests say so. Their images are fixed sets, where the papers draw new ones in
#   every step, and search for images on which teacher and student differ.
# - Glyphs are centred, white on black and as large as a garment: whoever chooses them knows something of the task.
# - The lost images' mean and std are used throughout; two numbers that a teacher should carry. Turned items have their own, close to these.
# - "Labels longer" is one length for each section. The probes have one strength of regularisation for all.
# - The turned images, and their thousand labels, are one set.
# - "Not told apart" is not "no effect".
#
# ## Further
#
# ### Every comparison in one row
#
# Gain in points (of the angle in degrees; of calibration, how much smaller the error is), 95 % interval of ten paired seeds, then of ten others that decide about the verdict with them.

# %%
lesson09_gains.shown(gains)

# %% [markdown]
# ## Glossary
#
# - **Generation**: a network of the same kind that learned from the one before it; generation 0 learned from labels.
# - **Exit**: a classifier behind an early stage. **Deep supervision**: labels at every exit.
# - **Mutual learning**: networks that learn from labels and from each other, at the same time.
# - **Born again**: taught by a network of the same kind. **Smoothed labels**: a part of the label is spread over all classes.
# - **Embedding**: the numbers before the last layer. **Standardised**: each number has mean 0 and standard deviation 1 over the images. **Glyph**: a letter or sign of a font.
# - **Linear probe**: a linear classifier on frozen embeddings.
# - **Inversion**: pixels are optimised until the teacher is sure. **Effective number of classes**: how many a set of images reaches.
# - **View**: an augmented version of an image.
#
# ## References
#
# - T. Furlanello, Z. C. Lipton, M. Tschannen, L. Itti, A. Anandkumar: Born-Again Neural Networks. 2018, arXiv 1805.04770.
# - H. Bagherinezhad, M. Horton, M. Rastegari, A. Farhadi: Label Refinery. 2018, arXiv 1805.02641.
# - M. Caron, H. Touvron, I. Misra, H. Jegou, J. Mairal, P. Bojanowski, A. Joulin: Emerging Properties in Self-Supervised Vision Transformers (DINO). 2021, arXiv 2104.14294.
# - L. Zhang, J. Song, A. Gao, J. Chen, C. Bao, K. Ma: Be Your Own Teacher. 2019, arXiv 1905.08094.
# - Y. Zhang, T. Xiang, T. M. Hospedales, H. Lu: Deep Mutual Learning. 2018, arXiv 1706.00384.
# - M. Oquab, T. Darcet, T. Moutakanni, et al.: DINOv2. 2023, arXiv 2304.07193.
# - M. Ranzinger, J. Barker, G. Heinrich, P. Molchanov, B. Catanzaro, A. Tao: PHI-S. 2024, arXiv 2410.01680.
# - H. Yin, P. Molchanov, Z. Li, J. M. Alvarez, A. Mallya, D. Hoiem, N. K. Jha, J. Kautz: Dreaming to Distill (DeepInversion). 2020, arXiv 1912.08795.
# - H. Chen, Y. Wang, C. Xu, Z. Yang, C. Liu, B. Shi, C. Xu, C. Xu, Q. Tian: Data-Free Learning of Student Networks (DAFL). 2019, arXiv 1904.01186.
# - T. Qin, Z. Deng, D. Alvarez-Melis: A Label is Worth a Thousand Images in Dataset Distillation. 2024, arXiv 2406.10485.

# %%
# What this lesson claims, checked.
said = {(row.topic, row.arm, row.over, row.of): row.verdict for row in gains.itertuples()}
ahead = {(row.topic, row.arm, row.over, row.of): row.gain.mean for row in gains.itertuples()}
right, wrong = "0% wrong labels", "40% wrong labels"
later = [f"generation {number}" for number in (1, 2, 3)]
by_arm = generations_table["accuracy"].groupby(["wrong", "arm"]).mean()
assert all(said["self", arm, "labels", right] == "not told apart" for arm in later)
assert said["self", "labels, smoothed", "labels", right] == "helps" and 0.006 < ahead["self", "labels, smoothed", "labels", right] < 0.01
assert all(said["self", arm, "labels, smoothed", right] == "hurts" for arm in ("generation 1", "generation 3"))
assert all(said["self", arm, "labels", wrong] == "helps" for arm in (*later, "labels, a third as long", "labels, smoothed, a third as long"))
assert by_arm[0.4, "generation 1"] < by_arm[0.4, "generation 2"] < by_arm[0.4, "generation 3"] and said["self", "generation 3", "generation 1", wrong] == "helps"
assert said["self", "generation 1", "labels, a third as long", wrong] == "hurts" and said["self", "generation 3", "labels, a third as long", wrong] == "not told apart"
stopped = "labels, smoothed, a third as long"
assert all(said["self", arm, stopped, wrong] == "hurts" for arm in ("generation 1", "generation 3", "generation 1 of labels a third as long"))
longest = "labels, as long as all generations"
assert ahead["self", longest, "labels", wrong] < -0.08 and generations_table.loc[(0.4, longest), "believed"].mean() > 0.98
assert ahead["self", "the course's teacher", "labels", wrong] > 3 * ahead["self", "generation 3", "labels", wrong]
longer_exits = "taught by the last exit, three times as long", "labels at every exit, three times as long"
for number in (1, 2, 3):
    assert said["exits", "taught by the last exit", "labels at every exit", f"exit {number}"] == said[("exits", *longer_exits, f"exit {number}")] == "not told apart"
assert said["exits", "labels at every exit, three times as long", "labels at every exit", "exit 1"] == "helps"

# %%
one, both = "one of the two", "both together"
mutual = {over: ahead["peers", "mutual", over, one] for over in ("alone", "alone, twice as long", "alone, smoothed labels", "by a finished peer")}
assert mutual["alone"] > 0.01 and mutual["alone, twice as long"] > 0.01 and said["peers", "mutual", "alone, smoothed labels", one] == "not told apart"
assert said["peers", "mutual", "alone", one] == said["peers", "alone, smoothed labels", "alone", one] == "helps"
assert said["peers", "mutual", "alone", "one of the two, over two that learned alone"] == "not told apart"
assert said["peers", "alone, twice as long", "alone", one] == said["peers", "by a finished peer", "alone", one] == "not told apart"
assert said["peers", "mutual", "alone, smoothed labels", both] == "hurts"
calibration = results.read("lesson09-peers").groupby("arm")["ece"].mean()
assert calibration["mutual"] < calibration["alone"] < calibration["alone, smoothed labels"] - 0.3
assert 0.02 < ahead["several", "one of the three", "labels", "accuracy"] and 0.007 < ahead["several", "mean of logits", "one of the three", "accuracy"] < 0.015
assert said["several", "mean of logits", "mean of probabilities", "accuracy"] == "helps" and ahead["several", "mean of logits", "mean of probabilities", "calibration"] < -0.01
outsiders = "mean of logits, of the two that have not seen the image"
assert said["several", "one that has not seen the image", "one of the three", "accuracy"] == "not told apart"
assert said["several", outsiders, "one that has not seen the image", "accuracy"] == "helps"

# %%
labelled = {count: f"{count:,} labels" for count in COUNTS}
over_labels = [ahead["embeddings", "standardised", "hard labels, views", words] for words in labelled.values()]
assert over_labels[0] > over_labels[1] > over_labels[2] > 0.05
assert all(abs(ahead["embeddings", arm, "standardised", words]) < 0.025 for arm in ("cosine", "squared error") for words in labelled.values())
assert all(ahead["embeddings", "standardised, untrained teacher", "raw pixels", words] < -0.05 for words in labelled.values())
assert abs(embedded.loc["standardised", "probe 1000"].mean() - ladder.loc[(9000, "real, unlabelled"), "accuracy"].mean()) < 0.02
angles = {words: ahead["embeddings", "standardised, teacher of angles", "hard labels, views", words] for words in labelled.values()}
assert angles["10 labels"] > 0 > angles["100 labels"]
assert said["embeddings", "standardised, teacher of angles", "raw pixels", "100 labels"] == "hurts"
gain_kept = [ahead["embeddings", "ImageNet's", "standardised", words] / ahead["embeddings", "standardised", "raw pixels", words] for words in labelled.values()]
assert max(gain_kept) < -0.5, "most of the gain is gone"
assert ahead["two", "standardised", "as they are", "degrees"] > 3 and said["two", "standardised", "as they are", "item"] == "not told apart"
met = results.read("lesson09-two").groupby("arm")[["items met", "angles met"]].mean()
assert met.loc["as they are", "angles met"] < 0.58 and met.loc["standardised", "angles met"] > 0.6 and met.loc["standardised", "items met"] > 0.65

# %%
few_mean, soft_view = few["accuracy"].groupby(["a_class", "arm"]).mean(), ("a soft label a view", "a soft label for all views")
assert said["few", "a soft label", "hard labels", "1 a class"] == "not told apart"
assert all(said["few", "a soft label", "hard labels", f"{count} a class"] == "helps" for count in (5, 10, 100))
assert few_mean[50, "a soft label"] > few_mean[100, "hard labels"], "more than twice the images"
assert all(few_mean[count, "hard labels, views"] > few_mean[count, "a soft label"] for count in (1, 2, 5, 10))
assert all(said["few", "a soft label a view", "hard labels, views", f"{count} a class"] == "helps" for count in (1, 5, 10, 100))
assert all(min(few_mean[count, way] for way in soft_view) > max(few_mean[count, way] for way in WAYS if way not in soft_view) for count in (1, 2, 5, 10, 20))
assert said[("few", *soft_view, "1 a class")] == "hurts" and said[("few", *soft_view, "10 a class")] == "helps"
assert few_mean[100, "a soft label"] - few_mean[100, soft_view[0]] > 0.02 and few_mean[100, "hard labels"] > few_mean[100, "hard labels, views"]

# %%
accuracy = ladder["accuracy"].groupby(["images", "arm"]).mean()
assert all(accuracy[9000, arm] < 0.15 for arm in ("noise", "shuffled pixels", "photographs")) and 0.2 < accuracy[9000, "digits"] < 0.3
assert 0.38 < accuracy[9000, "glyphs"] < 0.46 and said["ladder", "generated", "glyphs", "9,000 images"] == "not told apart"
assert said["ladder", "generated", "glyphs", "1,000 images"] == said["ladder", "inverted", "glyphs", "1,000 images"] == "helps"
assert accuracy[1000, "inverted"] > accuracy[1000, "generated"] and accuracy[9000, "real, unlabelled"] > 1.9 * accuracy[9000, "generated"]
assert all(said["ladder", "real, unlabelled", "real, labels", words] == "helps" for words in ("1,000 images", "9,000 images"))
assert min(ladder.loc[(9000, arm), "classes"].mean() for arm in ("generated", "real, unlabelled")) > 9.9
