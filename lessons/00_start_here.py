# %% [markdown]
# # 00 · Start here
#
# **Can this machine run the course, and how does a lesson work?**
#
# In this course a small network, the *student*, learns from the outputs of a larger, trained one, the *teacher*.
# This is called knowledge distillation. Every claim is an experiment that you can run and change. This notebook
# checks your machine, shows the images and the teacher, and lets you try each thing that a lesson is made of.
#
# **Objectives.** After this lesson you will be able to
#
# - say whether this machine can run the course, and what to do where it cannot;
# - find the lesson that answers your question;
# - name the splits of the data and what each is for;
# - read the symbols and words of the course;
# - predict, run, move a slider, and have an exercise checked;
# - read a difference between two methods with its interval.
#
# **Prerequisites.** Python; what a convolutional network is, and what cross-entropy is.
#
# **Time.** About 25 minutes of reading; the cells run in under a minute on 2 cores.
#
# Run a cell with Shift+Enter, or all of them with *Run > Run All Cells*. Nothing waits for a click.

# %% tags=["parameters", "projector"]
profile = None

# %% tags=["projector"]
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure

from kdlib import data, metrics, models, teachers, training
from kdlib.lesson import course, doctor, figures, plots, profiles, widgets
from kdlib.lesson.exercises import check, hint, solution
from kdlib.lesson.predictions import predict

profile = profiles.get(profile)
figures.use_style()

# %% [markdown]
# ## 1. Does the course run on this machine?
#
# The doctor looks at everything that the lessons need: packages, data, teacher, JupyterLab, a kernel. `ok` is fine.
# `note` marks something that the course can do without. `FAIL` has to be mended; an arrow says how.

# %%
if profile.name == "ci":
    print("The doctor starts a second kernel: too slow for the ci profile, which does without it.")
    findings = []
else:
    findings = doctor.examine()
broken = [finding for finding in findings if finding.state == doctor.BROKEN]
for finding in findings:
    print(f"{finding.state:5} {finding.subject}" + (f": {finding.detail}" if finding in broken else ""))
    if finding.remedy:
        print(f"        -> {finding.remedy}")
print(f"{len(findings)} things looked at, {len(broken)} to mend")

# %% [markdown]
# In a terminal, `kdlib doctor` prints the same with versions and places on the disk. A GPU is not needed.

# %% [markdown]
# ## 2. Which lesson answers which question?
#
# Each lesson asks one question. They build on each other from 01 to 03; from there on, choose. The last column comes
# from a look into the folder of the course. A `?` there says that the folder was not found.

# %%
questions = {
    "00_start_here": "Can this machine run the course, and how does a lesson work?",
    "01_principle": "What does a teacher add that the labels do not already say?",
    "02_temperature": "What does the temperature change in what a student learns?",
    "03_loss_balancing": "How much should the teacher count against the labels?",
    "04_feature_distillation": "Is there knowledge between the layers that the logits lack?",
    "05_deployment": "What does it take to turn a student into something that can be shipped?",
    "06_training_strategies": "Do schedules, stages and augmentation help a student?",
    "07_beyond": "What remains of distillation without a larger teacher, without data, or without classes?",
    "08_claims_and_bugs": "Which claims of common tutorials hold, and which bugs hide in their code?",
}
folder = course.repository() or course.checkout()
there = {path.stem for path in course.lessons(folder)} if folder else set()
absent = "not yet" if folder else "?"

table = ["| lesson | its question | here? |", "|:--|:--|:--|"]
for name, question in questions.items():
    title, here = (f"[{name}]({name}.ipynb)", "yes") if name in there else (name, absent)
    table.append(f"| {title} | {question} | {here} |")
Markdown("\n".join(table))

# %% [markdown]
# ## 3. What does the student learn from?
#
# The course brings its images along: Fashion-MNIST, small grey pictures of ten kinds of clothing. They come in three
# splits.
#
# - **train**: students learn from these images, most often from a small sample of them.
# - **validation**: settings such as the learning rate are chosen on these.
# - **test**: what is reported is measured on these.
#
# Why not choose settings on the test images? Whoever tries many settings and keeps the best one also keeps its luck
# on those images. On fresh images the luck is gone. So choices are made on validation, and test is left for the
# last line of a table.

# %%
# NBVAL_CHECK_OUTPUT
dataset = data.load("fashion-mnist")
for name, split in {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}.items():
    print(f"{name:11}{len(split):>7,} images; in each class {split.labels.bincount().tolist()}")

# %%
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
# ### Who is the teacher?
#
# A trained teacher comes along too. Its manifest says how it was made. We load it and measure it here: the share of
# images whose largest output belongs to the right class.

# %%
manifest = teachers.manifest("fashion-mnist")
recipe = manifest["recipe"]
print(f"network    {manifest['architecture']['name']}, {manifest['bytes']:,} bytes on disk")
print(f"trained    on {manifest['training_images']:,} images, {recipe['epochs']} epochs, {recipe['augmentation']}")
print(f"made by    {manifest['command']}   (seed {manifest['seed']}, torch {manifest['versions']['torch']})")
print(f"promised   {100 * manifest['test_accuracy']:.2f} % of the {manifest['test_images']:,} test images")

# %%
teacher = teachers.load("fashion-mnist")
measured = {
    "1,000 training images": dataset.train.take(1000, seed=0),
    "validation images": dataset.validation,
    "test images": dataset.test,
}
teacher_accuracy = {}
for name, split in measured.items():
    logits = teachers.cached_logits(teacher, split)
    teacher_accuracy[name] = metrics.accuracy(logits, split)
    print(f"{name:22} {100 * teacher_accuracy[name]:.2f} % right")

# %% [markdown]
# **Mind the first two lines.** The teacher was trained on all 60,000 training images with their labels. The images
# from which our students learn are among them, and so are the validation images. It knows them better than the test
# images, as the numbers show. Only the test images are new to it.
#
# So the teacher passes on more than the student's own labels hold. That is the situation in which distillation is
# used: somebody trained a large network on much data, and a small one is wanted. But a student with a teacher has
# had help from images that a student with labels alone has not. Keep that in mind when the two are compared.
#
# The last line may miss the promised number by a few images. Networks see pixels shifted and scaled by the mean and
# the standard deviation of the training images: those of all 60,000 when the teacher was made, those of the course's
# own training images here.

# %% [markdown]
# ## 4. What do the symbols and words mean?
#
# | symbol | what it is | in `kdlib` |
# |:--|:--|:--|
# | $z$ | the student's logits: its outputs before the softmax, one a class | `student_logits` |
# | $v$ | the teacher's logits | `teacher_logits` |
# | $T$ | temperature, above 0: logits are divided by it before the softmax | `temperature` |
# | $p$ | the teacher's softened probabilities, $\mathrm{softmax}(v / T)$ | |
# | $q$ | the student's softened probabilities, $\mathrm{softmax}(z / T)$ | |
# | $\alpha$ | weight of the **teacher's** term, from 0 (labels only) to 1 (teacher only) | `alpha` |
# | $L$ | the loss: teacher's and labels' terms, weighted | `distillation_loss(...).total` |
#
# $$L = \alpha \, T^2 \sum_k p_k \log \frac{p_k}{q_k} + (1 - \alpha) \, \mathrm{CE}(\mathrm{label})$$
#
# The student stands first and the teacher second in every function. Public codes differ in what they call $\alpha$:
# look before you copy a value. You need not understand the formula yet. Lesson 01 builds it.
#
# | word | meaning |
# |:--|:--|
# | hard labels | the class of each image, and nothing else |
# | soft targets | the teacher's probabilities for all classes |
# | transfer set | the images on which the student learns from the teacher |
# | task | the loss term of the labels |
# | distill | the loss term of the teacher |
# | hint | features inside the teacher that the student is to match |
# | agreement | share of images on which student and teacher choose the same class; also called fidelity |

# %% [markdown]
# ## 5. How does a section of a lesson work?
#
# In four steps: **predict, run, explain, slider**. First you say what you expect. A prediction that you wrote down
# is one that can surprise you. Here is one. Click, or leave what is chosen.

# %% tags=["projector"]
prediction = predict(
    "Three classes have the logits 4, 2 and 0. They are divided by T before the softmax, and T grows from 1 to 20. "
    "What happens to the largest probability?",
    "it stays as it is", "it falls towards one third", "it falls below the others",
)
prediction

# %% [markdown]
# Then you run it.

# %% tags=["projector"]
three_logits = torch.tensor([4.0, 2.0, 0.0])
for temperature in (1, 4, 20):
    probabilities = (three_logits / temperature).softmax(dim=0)
    print(f"T = {temperature:<3}", "  ".join(f"{probability:.3f}" for probability in probabilities))

prediction.compare(f"{three_logits.softmax(dim=0).max():.3f} at T = 1, {probabilities.max():.3f} at T = 20")

# %% [markdown]
# Then the numbers are explained. Dividing by $T$ shrinks the distances between the logits, so the probabilities come
# closer to each other. Their order stays. For very large $T$ all three are equal.
#
# Then there is a figure. On GitHub or on paper you see it for a few settings, side by side.

# %% tags=["projector"]
def draw_softmax(figure):
    axes = figure.subplots()
    bars = axes.barh(["logit 4", "logit 2", "logit 0"], [0, 0, 0], color=figures.COLOURS["teacher"])
    axes.axvline(1 / 3, color=figures.COLOURS["muted"], linestyle="--", linewidth=1.5)
    axes.set(xlim=(0, 1), xlabel="probability")
    axes.invert_yaxis()

    def update(*, temperature):
        for bar, width in zip(bars, (three_logits / temperature).softmax(dim=0).tolist(), strict=True):
            bar.set_width(width)
        return [*bars]

    return update


widgets.twin(
    draw_softmax, [{"temperature": T} for T in (1, 4, 20)], size=(3.6, 2.6),
    caption="softmax of the logits 4, 2 and 0 at three temperatures. The bars keep their order and move towards one "
    "third (dashed line).",
)

# %% [markdown]
# In JupyterLab the same function also draws a figure with a slider. Drag it, or click it and use the arrow keys.

# %% tags=["projector"]
widgets.explorer(
    draw_softmax, temperature=widgets.slider(0.2, 50, value=1, log=True), size=(8, 3),
    caption="the same three logits at any temperature. Below T = 1 the largest takes nearly all.",
)

# %% [markdown]
# If the slider does not move, the kernel is not running: choose *Run > Run All Cells*.

# %% [markdown]
# ## 6. How does an exercise work?
#
# An exercise is a function with a gap. You replace the `...`. `check` runs your function on several inputs and
# compares what comes out. How you write it does not matter. You may be wrong as often as you like.
#
# ### Exercise: the share of correct images
#
# Above, the teacher was measured by the share of images that it gets right. Write that function: the fraction of
# images whose largest logit is that of their label.

# %% exercise="share_correct"

# %% [markdown]
# Typical mistakes are recognised and named. This is one of them:

# %%
def percent_correct(logits, labels):
    return 100 * (logits.argmax(dim=1) == labels).float().mean()


check("share_correct", percent_correct)

# %% [markdown]
# Stuck? There are three hints, from a nudge to nearly the answer. Run the cell again for the next one.

# %%
hint("share_correct")

# %% [markdown]
# `solution("share_correct")`, alone in a cell, shows one way to write it. The folder `solutions` has every notebook
# with its exercises solved. This is how a right answer is received:

# %%
check("share_correct", solution("share_correct"))

# %% [markdown]
# ## 7. How is a number in this course made?
#
# A network that is trained twice does not give the same number twice, unless chance is fixed. Chance enters by the
# *seed*: it decides the initial weights, the sample of images and their order. With the same seed, machine and number
# of threads, everything repeats exactly.

# %%
epochs = profile.choose(ci=2, lesson=8, full=8)


def student_accuracy(images, seed):
    """Train a small student on so many images, with labels only; measure it on the validation images."""
    student = models.build("tiny-cnn", seed=seed)
    sample = dataset.train.take(images, seed=seed)
    training.train(student, sample, epochs=epochs, seed=seed, progress=False)
    return metrics.accuracy(student, dataset.validation)


for seed in (0, 0, 1):
    print(f"seed {seed}: {100 * student_accuracy(250, seed):.1f} % of the validation images right")

# %% [markdown]
# So one number says little: another seed gives another one. To compare two methods, we train *pairs*. The two students
# of a pair share the seed and differ in the method only. Their difference is noted for each seed.

# %%
images_prediction = predict(
    "One student learns from 250 images, its partner from 500. Does the partner do better?",
    "in every pair", "on average, but not in every pair", "no",
    default="on average, but not in every pair",
)
images_prediction

# %%
seeds = profile.choose(ci=range(2), lesson=range(5), full=range(20))
few = [student_accuracy(250, seed) for seed in seeds]
many = [student_accuracy(500, seed) for seed in seeds]
gain = metrics.paired_interval(many, few)

figures.show(
    plots.paired_seeds(few, {"500 images": many}, baseline_name="250 images", ylabel="validation accuracy (%)"),
    "left, each grey line joins the two students of one seed. Right, the difference within each pair (dots), and their "
    "mean with its 95 % interval (diamond). The line at zero means no difference.",
)
wins = sum(large > small for large, small in zip(many, few, strict=True))
images_prediction.compare(f"{plots.points(gain)}, better in {wins} of {len(seeds)} pairs")

# %% [markdown]
# Read the last line like this: the mean difference in percentage points (pp), and in brackets the 95 % interval, by
# Student's t. If zero lies inside the interval, we do not claim a difference. Every comparison of the course is shown
# in this way.
#
# How much is computed depends on the **profile**:
#
# | profile | for | time for a lesson, on 2 cores |
# |:--|:--|:--|
# | `ci` | does everything run? Too little training for any claim | seconds |
# | `lesson` | reading and teaching; what you get by default | up to three minutes |
# | `full` | more seeds and longer training | as long as it takes |
#
# Choose it by the variable `KDLIB_PROFILE`, or write `profile = "full"` in the first code cell of a lesson.
#
# Some experiments take longer than a lesson may. Their tables are **recorded**, and below each stands a line with its
# date and the command that made it: `kdlib record` and the experiment's name. The same command makes it again.

# %% [markdown]
# ## 8. What about a lecture hall, or a machine without a network?
#
# - **No network.** After the installation nothing is fetched: images, teacher and recorded tables are files of the
#   course. Only other data sets are downloaded, and only where a cell asks for them by name.
# - **With a projector.** *View > Appearance > Presentation Mode* enlarges JupyterLab; Ctrl and plus enlarges the page.
#   The letters in figures are large, and no figure relies on telling red from green.
# - **Without a browser.** `kdlib run` executes all lessons, or those you name, and writes an HTML page for each, and a
#   table of what passed. `kdlib run notebooks/00_start_here.ipynb --profile ci` is the quickest try.
# - **On paper or GitHub.** Sliders need a kernel. Beside each stands the same figure for a few fixed settings.

# %% [markdown]
# ## Summary
#
# - The doctor says whether the course runs here, and how to mend what does not.
# - Students learn from train, choices are made on validation, results are measured on test.
# - $\alpha$ weighs the teacher, in every formula and every function.
# - Predict, run, explain, slider. Exercises are checked by what they compute.
# - A difference is stated with its pairs and its interval, or not at all.

# %% [markdown]
# ## What is honest here, and what is not?
#
# - The teacher saw the validation images and every image our students learn from. Only the test images are new to it.
#   So a student of this teacher may look a little better on validation than it is.
# - Section 7 asks an easy question with a known answer. It shows how to read the figure; it is no result.
# - A few seeds make a wide interval. It covers chance in weights, sample and order. It does not cover another data
#   set or another network.
# - The interval by Student's t assumes that the differences scatter about evenly around their mean.
# - Fashion-MNIST is small and easy. What helps here need not help on large photographs; lessons say where they know.

# %% [markdown]
# ## Glossary
#
# - **distillation**: training a student to match the outputs of a teacher.
# - **logits**: the outputs of a network before the softmax.
# - **manifest**: a file that says how another one was made.
# - **paired interval**: the range in which the mean difference of pairs lies, at a confidence of 95 %.
# - **profile**: how much a notebook computes.
# - **seed**: the number that fixes chance.
# - **split**: a part of the data with a purpose of its own.
# - **static twin**: a slider's figure, drawn for a few fixed settings.

# %% [markdown]
# ## References
#
# - C. Buciluă, R. Caruana, A. Niculescu-Mizil: *Model Compression*. KDD 2006,
#   [doi:10.1145/1150402.1150464](https://doi.org/10.1145/1150402.1150464).
# - J. Ba, R. Caruana: *Do Deep Nets Really Need to be Deep?* 2013, [arXiv:1312.6184](https://arxiv.org/abs/1312.6184).
# - G. Hinton, O. Vinyals, J. Dean: *Distilling the Knowledge in a Neural Network*. 2015,
#   [arXiv:1503.02531](https://arxiv.org/abs/1503.02531).
# - H. Xiao, K. Rasul, R. Vollgraf: *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*.
#   2017, [arXiv:1708.07747](https://arxiv.org/abs/1708.07747).
#
# Next: [01 · The principle](01_principle.ipynb).

# %% [markdown]
# ### Does what this lesson said hold here?

# %%
assert not broken, "the doctor found something to mend: see section 1"
assert dataset.train.indices.max() < manifest["training_images"]  # the teacher saw the transfer images
assert abs(teacher_accuracy["test images"] - manifest["test_accuracy"]) < 0.002
assert student_accuracy(250, seed=0) == few[0]  # a seed fixes everything
if profile.name != "ci":
    assert teacher_accuracy["1,000 training images"] > teacher_accuracy["test images"]
    assert gain.low > 0
print("Everything that this lesson claimed holds on this machine.")
