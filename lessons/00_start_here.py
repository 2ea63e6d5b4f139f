# %% [markdown]
# # 00 · Start here
#
# **Can this machine run the course, and how does a lesson work?**
#
# In this course a small network, the *student*, learns from the outputs of a larger, trained one, the *teacher*.
# Buciluă, Caruana and Niculescu-Mizil (2006) and Ba and Caruana (2013) had the idea, Hinton, Vinyals and Dean
# (2015) gave it the name **knowledge distillation**. Every claim of the course is an experiment that you can run
# and change. Here you try each thing that a lesson is made of, and complete the three small functions on which
# every later number rests.
#
# **Objectives.** After this lesson you will be able to
#
# - say whether this machine can run the course, and what to do where it cannot;
# - predict, run, move a slider, and have an exercise checked;
# - name the splits of the data, and measure a network with a function of your own;
# - report the accuracy of a setting that was chosen among several;
# - compare two methods in pairs, and read the difference with its interval;
# - design a small experiment.
#
# **Prerequisites.** Python; what a convolutional network, the softmax and the cross-entropy are.
#
# **Time.** About 45 minutes, more than half of them for four exercises.
#
# Run a cell with Shift+Enter, or all of them with *Run > Run All Cells*. Nothing waits for a click.

# %% tags=["parameters", "projector"]
profile = None

# %% tags=["projector"]
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure

from kdlib import data, metrics, models, teachers, training
from kdlib.lesson import course, doctor, figures, plan, plots, profiles, widgets
from kdlib.lesson.exercises import check, hint, mine, solution
from kdlib.lesson.laboratory import Laboratory
from kdlib.lesson.predictions import predict

profile = profiles.get(profile)
figures.use_style()

# %% [markdown]
# ## 1. Is everything here?
#
# The **profile** says how much a notebook computes. You get `lesson`, which makes the figures as you read them.
# `ci` only shows that everything runs; its numbers mean nothing. `full` uses more seeds and takes as long as it
# takes. To choose, write `profile = "full"` in the first code cell, or set the variable `KDLIB_PROFILE`.
#
# The doctor looks at everything that the lessons need. `ok` is fine, `note` marks what the course can do without,
# and `FAIL` has to be mended: an arrow says how. A GPU is not needed.

# %%
if profile.name == "ci":
    print("The doctor starts a second kernel: too slow for the profile ci.")
else:
    findings = doctor.examine()
    print(doctor.report(findings, details=False))

# %% [markdown]
# `kdlib lab` opens your own copies of the lessons, in the folder `my_notebooks`: whatever you write there is
# yours, and no update of the course touches it. `kdlib lab --reset 02` puts a fresh copy of lesson 02 there and
# keeps yours under another name.
#
# Each lesson asks one question. Lessons 01 to 03 build on each other; from there on, choose.

# %%
Markdown(plan.table(course.repository() or course.checkout()))

# %% [markdown]
# ## 2. How does a section work?
#
# In four steps: **predict, run, explain, play**. Here they are, with a question about the softmax.
#
# The last layer of a network gives one number a class, the **logits** $z_k$. The softmax makes probabilities
# $p_k$ of them. In this course the logits are first divided by a number $T > 0$, the **temperature**:
#
# $$p_k = \frac{e^{z_k / T}}{\sum_j e^{z_j / T}}$$
#
# Predict: say what you expect before you see it. Only a prediction that you made can surprise you.

# %% tags=["projector"]
softmax_prediction = predict(
    "Three classes have the logits 4, 2 and 0. At T = 20, what is the probability of the first class?",
    {"under 33 %": (0, 33), "33 to 50 %": (33, 50), "50 to 90 %": (50, 90), "over 90 %": (90, 100)},
    unit="%",
)
softmax_prediction

# %% [markdown]
# Run:

# %% tags=["projector"]
# NBVAL_CHECK_OUTPUT
three_logits = torch.tensor([4.0, 2.0, 0.0])
for temperature in (1, 4, 20):
    probabilities = (three_logits / temperature).softmax(dim=0)
    print(f"T = {temperature:<3}", "  ".join(f"{probability:.3f}" for probability in probabilities))

softmax_prediction.compare(probabilities[0].item())

# %% [markdown]
# Explain: dividing by $T$ shrinks the distances between the logits, so the probabilities come closer to each
# other. Their order stays. For very large $T$ all three are equal.
#
# Play: drag the slider, or click it and use the arrow keys. At which $T$ does the first class fall below one
# half? Is there a $T$ at which another class is ahead of it? Sliders need a running kernel. For paper and for
# GitHub the same figure stands beside each, for a few fixed settings.

# %% tags=["figure", "projector"]
def draw_softmax(figure):
    axes = figure.subplots()
    bars = axes.barh(["logit 4", "logit 2", "logit 0"], [0, 0, 0], color=figures.COLOURS["teacher"])
    axes.axvline(1 / 3, color=figures.COLOURS["muted"], linestyle="--", linewidth=1.5)
    axes.axvline(1 / 2, color=figures.COLOURS["muted"], linestyle=":", linewidth=1.5)
    axes.set(xlim=(0, 1), xlabel="probability")
    axes.invert_yaxis()

    def update(*, temperature):
        for bar, width in zip(bars, (three_logits / temperature).softmax(dim=0).tolist(), strict=True):
            bar.set_width(width)
        return [*bars]

    return update


widgets.explorer(
    draw_softmax, temperature=widgets.slider(0.2, 50, value=1, log=True), size=(8, 3),
    caption="the softmax of the logits 4, 2 and 0 at any temperature, with lines at one third (dashed) and one "
    "half (dotted). Below T = 1 the first class takes nearly all.",
)

# %% tags=["figure"]
widgets.twin(
    draw_softmax, [{"temperature": T} for T in (1, 4, 20)], size=(3.6, 2.6),
    caption="the same at three temperatures. The bars keep their order and move towards one third (dashed line).",
)

# %% [markdown]
# ## 3. What do students learn from, and what are they measured on?
#
# The course brings its images along: Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), small grey pictures of ten
# kinds of clothing. They come in three parts, the **splits**:
#
# - **train**: students learn from these images, most often from a small sample of them;
# - **validation**: settings, such as the learning rate, are chosen on these;
# - **test**: what is reported is measured on these.

# %%
# NBVAL_CHECK_OUTPUT
dataset = data.load("fashion-mnist")
for name, split in {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}.items():
    print(f"{name:11}{len(split):>7,} images, {len(split) // len(dataset.classes)} in each class")

# %% tags=["figure"]
train = dataset.train
rows = torch.stack([torch.where(train.labels == label)[0][:4] for label in range(len(dataset.classes))])
montage = train.images[rows.T, 0].permute(0, 2, 1, 3).reshape(4 * 28, 10 * 28)

figure = Figure(figsize=(11, 4.8))
axes = figure.subplots()
axes.imshow(montage, cmap="gray_r")
axes.set_xticks(14 + 28 * torch.arange(10), dataset.classes)
axes.tick_params(length=0)
axes.set_yticks([])
axes.spines[:].set_visible(False)
figures.show(
    figure,
    "four training images of each class, one class a column. Some classes look alike: shirt, pullover and coat; "
    "sneaker and ankle boot. A label does not say so; a teacher's outputs do.",
)

# %% [markdown]
# A trained teacher comes along, too, with a *manifest*, a file that says how it was made.

# %%
# NBVAL_CHECK_OUTPUT
teacher, manifest = teachers.load("fashion-mnist"), teachers.manifest("fashion-mnist")
recipe = manifest["recipe"]
print(f"made by {manifest['command']}: {recipe['epochs']} passes over {manifest['training_images']:,} images")
print(f"{100 * manifest['test_accuracy']:.2f} % of the {manifest['test_images']:,} test images right")

# %% [markdown]
# ### Exercise: the share of correct images
#
# We do not take this on trust. The **accuracy** of a network is the share of images on which the largest of its
# logits is that of the label. Write it: replace the `...`. Below it, `check` tries your function on several
# inputs and compares what comes out; how you write it does not matter, and you may be wrong as often as you like.
# First be wrong on purpose: return `0.5`, run both cells, and read the verdict. `hint` has three hints, from a
# nudge to nearly the answer; `solution("share_correct")` shows one way to write it.

# %% exercise="share_correct"

# %% [markdown]
# ### Your function measures the teacher
#
# A difference of two percentages is counted in *percentage points*, in short *points* or *pp*.

# %%
teacher_prediction = predict(
    "The teacher was trained on 60,000 images. How much better is it on 1,000 of these than on the test images?",
    {"not at all": (None, 1), "1 to 5 points": (1, 5), "5 to 15 points": (5, 15), "more": (15, None)},
)
teacher_prediction

# %%
share = mine("share_correct", share_correct)
accuracy = {}
for name, split in {"training": dataset.train.take(1000, seed=0), "test": dataset.test}.items():
    logits = teachers.cached_logits(teacher, split)
    accuracy[name] = float(share(logits, split.labels))
    library = metrics.accuracy(logits, split)
    print(f"{name:9}{100 * accuracy[name]:.2f} % by this function, {100 * library:.2f} % by the library's")

teacher_prediction.compare(accuracy["training"] - accuracy["test"])

# %% [markdown]
# The teacher is better on images from which it learned. **Mind this:** the images from which our students learn,
# and the validation images, are among them, with their labels; only the test images are new to it. That is how
# distillation is used: somebody trained a large network on much data, and a small one is wanted. But a student
# with a teacher has had help from images that a student with labels alone has not.

# %% [markdown]
# ## 4. Which number may be reported?
#
# Several settings are tried, one is chosen, and its accuracy is reported.
#
# ### Exercise: a report to repair
#
# This function does that, and it runs. Repair it.

# %% exercise="repair_report"

# %% [markdown]
# ### What does the repair change?
#
# To see it without other effects, take "networks" that cannot differ: they guess. Each names one of ten classes
# at random for each image, so each is right once in ten times, on average.

# %%
guessing_prediction = predict(
    "The best of fifty guessers is picked by its accuracy on 100 images. How high is it there, on average?",
    {"about 10 %, as for all": (0, 13), "13 to 25 %": (13, 25), "25 to 50 %": (25, 50), "more": (50, 100)},
    unit="%",
)
guessing_prediction

# %%
# NBVAL_CHECK_OUTPUT
def guess(seed, guessers=50, images=100):
    """The accuracies of the guessers on the validation images and on the test images, by the number of each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (2, 1, images), generator=generator)
    guesses = torch.randint(10, (2, guessers, images), generator=generator)
    return [dict(enumerate(split)) for split in (guesses == labels).double().mean(dim=2).tolist()]


report = mine("repair_report", repair_report)
picked, reported = [], []
for seed in range(500):
    validation, test = guess(seed)
    picked.append(max(test.values()))
    reported.append(report(validation, test)[1])
picked, reported = (sum(values) / len(values) for values in (picked, reported))
print(f"the best on test: {100 * picked:.1f} %; by the repaired report: {100 * reported:.1f} %")
guessing_prediction.compare(picked)

# %% [markdown]
# The best of fifty was picked for its luck on these images, and keeps that luck in its number. On images that had
# no say in the choice the luck is gone. So choices are made on validation, and test is left for the last line of
# a table.
#
# Play: change `guessers=50` to `1000`, or `images=100` to `1000`. Say first which way the two numbers will move.

# %% [markdown]
# ## 5. When is a difference more than luck?
#
# Chance enters a training by its **seed**: the number that decides the initial weights, the sample of images and
# their order. The same seed, on the same machine with the same number of threads, repeats everything exactly.

# %%
epochs = profile.choose(ci=2, lesson=8, full=8)


def student_accuracy(images, seed):
    """Train a small student on so many images, with their labels only; measure it on the validation images."""
    student = models.build("tiny-cnn", seed=seed)
    sample = dataset.train.take(images, seed=seed)
    training.train(student, sample, epochs=epochs, seed=seed, progress=False)
    return metrics.accuracy(student, dataset.validation)


for seed in (0, 0, 1, 2, 3, 4):
    print(f"seed {seed}: {100 * student_accuracy(250, seed):.1f} % of the validation images right")

# %% [markdown]
# So one number says little: see how far the seeds lie apart. To compare a **treatment** with a **control**,
# students are trained in *pairs*. The two of a pair share the seed and differ in nothing but what is compared.
# How much better the treatment does is the *gain* of the pair.
#
# ### Exercise: gains within pairs
#
# Students that are trained side by side come back in any order, and now and then one is lost.

# %% exercise="gains_by_seed"

# %%
images_prediction = predict(
    "The control learns from 250 images, the treatment from 500. What does the treatment gain?",
    {"it does worse": (None, 0), "0 to 3 points": (0, 3), "3 to 15 points": (3, 15), "more": (15, None)},
)
images_prediction

# %%
seeds = profile.choose(ci=range(2), lesson=range(5), full=range(20))
few = {seed: student_accuracy(250, seed) for seed in seeds}
many = {seed: student_accuracy(500, seed) for seed in reversed(seeds)}

gains = mine("gains_by_seed", gains_by_seed)(few, many)
interval = metrics.paired_interval([many[seed] for seed in seeds], [few[seed] for seed in seeds])
mean = sum(gains.values()) / len(gains)
print(f"mean gain: {100 * mean:.2f} points by this function, {100 * interval.mean:.2f} by the library's")
images_prediction.compare(interval)

# %% tags=["figure"]
figures.show(
    plots.paired_seeds(
        [few[seed] for seed in seeds], {"500 images": [many[seed] for seed in seeds]},
        baseline_name="250 images", ylabel="validation accuracy (%)",
    ),
    "left, each grey line joins the two students of one seed. Right, the gain of each pair (dots), and their mean "
    "with its 95 % interval (diamond). The line at zero means no difference.",
)

# %% [markdown]
# The brackets in the comparison hold the 95 % interval of the mean gain (Student, 1908). For $n$ pairs with the
# mean gain $\bar d$ and the standard deviation $s$ of the gains it is
#
# $$\bar d \pm t \, \frac{s}{\sqrt{n}},$$
#
# where $t$ depends on $n$ alone: about 12.7 for two pairs, 2.8 for five, close to 2 for many. If zero lies inside
# the interval, we do not claim a difference. Every comparison of the course is shown in this way.

# %% [markdown]
# ## 6. How do you try a question of your own?
#
# By an **open experiment**, an exercise without a right number. You choose a question and write the function that
# answers it; `check` judges its *design*. The function gets a **laboratory**: `lab.student(seed, images=500)` is
# a student, and its `.accuracy("test")` trains it, if that was not done before, and measures it. An **arm** is
# one way to train. A design is sound when
#
# - there are two arms, one of them the control, which differ in nothing but what is asked;
# - both are measured with the same seeds, five or more;
# - whatever is chosen is chosen on validation, and only the arms that are reported are measured on test;
# - the paired interval of their difference is returned (`paired_interval(a, b)` is that of `a` minus `b`).
#
# `check` runs your function in a rehearsal, a laboratory of invented accuracies that takes no time.
# `label_smoothing=0.1`, in one of the questions, takes a tenth of the certainty of each label and shares it among
# all classes.

# %% exercise="half_the_images"

# %% [markdown]
# Now in the real laboratory. How would you put the result into one sentence?

# %%
lab = Laboratory(profile, settings=("images", "epochs", "label_smoothing"))
difference = mine("half_the_images", half_the_images)(lab)
print(lab)
print(f"difference on test: {plots.points(difference)}")

# %% [markdown]
# ## Summary
#
# - Predict, run, explain, play. Exercises are checked by what they compute, open experiments by their design.
# - Students learn from train, choices are made on validation, results are measured on test.
# - Whatever was picked for its number on some images is measured again on others.
# - A difference is stated with its pairs and its interval, or not at all.

# %% [markdown]
# ### What is honest here, and what is not
#
# - The teacher saw the validation images and every image our students learn from. Only the test images are new to
#   it. So a student of this teacher may look a little better on validation than it is.
# - Section 5 asks an easy question with a known answer. It shows how to read the figure; it is no result. Twice the
#   images in as many passes are twice the steps, too: which of the two helps, it does not say.
# - A few seeds make a wide interval. It covers chance in weights, sample and order. It does not cover another
#   data set or another network. It assumes that the gains scatter about evenly around their mean.
# - Fashion-MNIST is small and easy. What helps here need not help on large photographs; lessons say where they
#   know.
# - The test accuracy in the manifest may differ by a few images from the measured one. Networks see pixels
#   shifted and scaled by the mean and the standard deviation of the training images: those of all 60,000 when the
#   teacher was made, those of the course's own training images here.

# %% [markdown]
# ## Further
#
# ### The symbols of the course
#
# | symbol | what it is | in `kdlib` |
# |:--|:--|:--|
# | $z$ | the student's logits | `student_logits` |
# | $v$ | the teacher's logits | `teacher_logits` |
# | $T$ | temperature, above 0 | `temperature` |
# | $p$ | the teacher's softened probabilities, $\mathrm{softmax}(v / T)$ | |
# | $q$ | the student's softened probabilities, $\mathrm{softmax}(z / T)$ | |
# | $\alpha$ | weight of the **teacher's** term, from 0 (labels only) to 1 (teacher only) | `alpha` |
# | $L$ | the loss: teacher's and labels' terms, weighted | `distillation_loss(...).total` |
#
# $$L = \alpha \, T^2 \sum_k p_k \log \frac{p_k}{q_k} + (1 - \alpha) \, \mathrm{CE}(\mathrm{label})$$
#
# The student stands first and the teacher second in every function. Public codes differ in what they call
# $\alpha$: look before you copy a value. You need not understand the formula yet. Lesson 01 builds it.
#
# ### Recorded results
#
# Some experiments take longer than a lesson may. Their tables are **recorded**, and below each stands a line with
# its date and the command that made it: `kdlib record` and the experiment's name. The same command makes it
# again.
#
# ### Without a network, in a lecture hall, without a browser
#
# - **No network.** After the installation nothing is fetched: images, teacher and recorded tables are files of
#   the course. Only other data sets are downloaded, and only where a cell asks for them by name.
# - **With a projector.** `kdlib lab --demo 00` shows the interactive figures of this lesson alone, in large
#   letters. No figure relies on telling red from green.
# - **Without a browser.** `kdlib run` executes all lessons, or those you name, and writes an HTML page for each,
#   and a table of what passed. `kdlib run notebooks/00_start_here.ipynb --profile ci` is the quickest try.
# - **Solved.** The folder `solutions` has every lesson with its exercises solved: in a checkout it lies in
#   `notebooks`, otherwise beside your copies of the lessons.

# %% [markdown]
# ## Glossary
#
# - **accuracy**: the share of images on which the largest logit is that of the label.
# - **agreement**: the share of images on which student and teacher choose the same class; also called fidelity.
# - **distillation**: training a student to match the outputs of a teacher.
# - **gain**: what a treatment does better than its control, in one pair or on average.
# - **hard labels**: the class of each image, and nothing else.
# - **hint**: features inside the teacher that the student is to match.
# - **interval**: the range in which the mean gain lies, at a confidence of 95 %.
# - **logits**: the outputs of a network before the softmax.
# - **profile**: how much a notebook computes.
# - **seed**: the number that fixes chance.
# - **soft targets**: the teacher's probabilities for all classes.
# - **split**: a part of the data with a purpose of its own.
# - **transfer set**: the images on which the student learns from the teacher.

# %% [markdown]
# ## References
#
# - C. Buciluă, R. Caruana, A. Niculescu-Mizil: *Model Compression*. KDD 2006,
#   [doi:10.1145/1150402.1150464](https://doi.org/10.1145/1150402.1150464).
# - J. Ba, R. Caruana: *Do Deep Nets Really Need to be Deep?* 2013,
#   [arXiv:1312.6184](https://arxiv.org/abs/1312.6184).
# - G. Hinton, O. Vinyals, J. Dean: *Distilling the Knowledge in a Neural Network*. 2015,
#   [arXiv:1503.02531](https://arxiv.org/abs/1503.02531).
# - Student: *The Probable Error of a Mean*. Biometrika 6, 1908,
#   [doi:10.1093/biomet/6.1.1](https://doi.org/10.1093/biomet/6.1.1).
# - H. Xiao, K. Rasul, R. Vollgraf: *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
#   Algorithms*. 2017, [arXiv:1708.07747](https://arxiv.org/abs/1708.07747).
#
# Next: [01 · The principle](01_principle.ipynb).

# %% [markdown]
# ### Does what this lesson said hold here?

# %%
assert profile.name == "ci" or doctor.BROKEN not in {finding.state for finding in findings}, "see section 1"
assert dataset.train.indices.max() < manifest["training_images"]  # the teacher saw the transfer images
assert abs(accuracy["test"] - manifest["test_accuracy"]) < 0.002
assert reported < 0.12 < picked  # the luck is gone where it had no say
assert student_accuracy(250, seed=0) == few[0]  # a seed fixes everything
assert abs(mean - interval.mean) < 1e-9
if profile.name != "ci":
    assert accuracy["training"] > accuracy["test"]
    assert interval.low > 0
print("Everything that this lesson claimed holds on this machine.")
