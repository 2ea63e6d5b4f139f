# %% [markdown]
# # 10 · The claims and the bugs
#
# **Which claims of common tutorials hold, and which bugs hide in their code?**
#
# You have learned distillation from us. Others learned it from tutorials, and so did the people whose code you will use. Here you check what tutorials
# claim, mend what public code gets wrong, and take a study apart.
#
# **Objectives.** After this lesson you will be able to
#
# - say of a claim what it needs to be true, and check it by a count, a run or a recorded table;
# - ask any loss what it wants of a student, before you train with it;
# - find a defect of a training loop from its symptom, and say whether mending it matters;
# - say how much of a published gain a search makes from nothing;
# - find the faults of a study, and rewrite its conclusion.
#
# **Prerequisites.** Lessons 01 to 04; what lessons 05 to 09 measured is looked up.
#
# **Time.** About 70 minutes, half of them for six exercises; the cells run in about a minute on 2 cores.

# %% tags=["parameters", "projector"]
profile = None

# %% tags=["projector"]
import functools

import numpy as np
import pandas
import torch
from IPython.display import display
from matplotlib.figure import Figure

from kdlib import audit, clinic, data, metrics, models, teachers
from kdlib.clinic import loops, losses, study
from kdlib.deploy.benchmark import latency
from kdlib.experiments import lesson10_gains
from kdlib.experiments.lesson10_selection import expected_gain
from kdlib.lesson import figures, laboratory, plots, profiles, results, widgets
from kdlib.lesson.exercises import check, hint, mine, solution
from kdlib.lesson.predictions import predict
from kdlib.loss_doctor import examine

# %% tags=["projector"]
profile = profiles.get(profile)
SOLVED_BELOW = ("A6", "B27", "C1", "C2", "C3", "C4", "D8")
figures.use_style()
pandas.set_option("display.max_colwidth", 100, "display.max_rows", 200)
torch.set_num_threads(1)
dataset, teacher = data.load("fashion-mnist"), teachers.load("fashion-mnist")
images, judges, passes = profile.choose(ci=(100, 500, 2), lesson=(1000, 2000, 10), full=(1000, 10_000, 20))
test = dataset.test.take(judges, seed=0)

# %% [markdown]
# ## 1. What do tutorials claim?
#
# Four widely read texts stand for many. **A** walks through the classic pair on CIFAR-10, TeacherNet and StudentNet. **B** is an overview with advice and numbers from many
# data sets. **C** is a short MNIST program. **D** distils a ResNet-18 into a MobileNetV2, for a web page. We cut them into claims of one sentence; the cuts are ours, and one slip may give several rows.
#
# Many claims need no training at all. A *count* takes three lines:

# %%
# NBVAL_CHECK_OUTPUT
claimed = {"teacher-net": 1.2e6, "student-net": 0.4e6}  # by tutorial A
for name, parameters in claimed.items():
    network = models.build(name, in_channels=3, image_size=32)
    counted = sum(parameter.numel() for parameter in network.parameters())
    print(f"{name}: claimed {parameters:,.0f}, counted {counted:,}: {counted / parameters:.1f} times as many")

# %% tags=["projector"]
hold_prediction = predict(
    "We split the four texts into claims of one sentence each. How many of a hundred hold as they are stated?",
    {"fewer than 10": (0, 10), "10 to 25": (10, 25), "25 to 50": (25, 50), "more than half": (50, 100)}, unit="%")
untested_prediction = predict(
    "And of how many of a hundred do we give no verdict, as what they name or need is not here?",
    {"fewer than 10": (0, 10), "10 to 20": (10, 20), "20 to 40": (20, 40), "more": (40, 100)}, unit="%")
display(hold_prediction, untested_prediction)

# %% [markdown]
# Each claim got a function that measures it, by a count, a computation of a moment, or a table that a lesson recorded. The verdict follows from the numbers; `kdlib audit B7` prints one row again.

# %% tags=["projector"]
verdicts = audit.counts()
display(verdicts)
share = verdicts.loc["all"] / verdicts.loc["all"].sum()

# %% tags=["projector"]
hold_prediction.compare(share[audit.HOLDS])

# %% tags=["projector"]
untested_prediction.compare(share[audit.UNTESTED])

# %% [markdown]
# Choose a verdict and a topic. Mind the column "it needs": what the claim should have said. Seven rows are kept back: you find them yourself below.

# %% tags=["projector"]
audit.board(without=SOLVED_BELOW)

# %% [markdown]
# **What this says.** Counts are wrong most often, though anybody can count. Advice on temperature and alpha is seldom right as it stands and often right in part: the best setting depends on the teacher, the number of images and the passes, and advice
# names none of them. No verdict is given where a claim names data or a device that is not here; its row says what a test would take. A gain that cannot be told apart from none counts as one that does not hold.
# The whole table stands under Further.
#
# ## 2. Does the classic pair do what it says?
#
# Tutorial A trains both networks on CIFAR-10: Adam at 0.001, 50 epochs, no augmentation. Its student copies the teacher at temperature $T = 4$, without labels:
#
# $$L = T^2\,\mathrm{KL}\big(\mathrm{softmax}(v / T)\,\Vert\,\mathrm{softmax}(z / T)\big)$$
#
# with the teacher's logits $v$ and the student's $z$ (Hinton et al. 2015). It has no student of labels alone. We add one, and one that stops after a third of the epochs.

# %% tags=["projector"]
pair_prediction = predict(
    "Same start, same order, 50 epochs: how far is the distilled StudentNet ahead of labels alone?",
    {"behind by more than a point": (None, -1), "less than one point apart": (-1, 1), "ahead by one to three": (1, 3), "ahead by more": (3, None)})
display(pair_prediction)

# %% tags=["projector", "figure"]
print(results.provenance("lesson10-classic"))
print("The images are CIFAR-10 as small JPEG files, KDLIB_CLASSIC_DATA=folder:PATH; without it, the command trains on the original CIFAR-10, which it downloads.")
print(results.provenance("lesson10-cost"))
pair = results.read("lesson10-classic")
cost = results.read("lesson10-cost").groupby("network")[["parameters", "bytes", "milliseconds"]].median().astype({"parameters": int, "bytes": int})
pair_table = pair.groupby(["network", "arm"], sort=False)["accuracy"].agg(["mean", "count"]).reset_index().join(cost, on="network")
pair_table["mean"] = (100 * pair_table["mean"]).round(1)
students = pair[pair["network"] == "student-net"].pivot(index="seed", columns="arm", values="accuracy")
display(pair_table.rename(columns={"mean": "accuracy (%)", "count": "seeds"}).round({"milliseconds": 2}))

# %%
for arm, over in (("distilled", "labels"), ("labels, a third as long", "labels"), ("distilled", "labels, a third as long")):
    mean, low, high = (100 * number for number in metrics.paired_interval(students[arm], students[over]))
    print(f"{arm} over {over}: {mean:+.2f} points [{low:+.2f}, {high:+.2f}]")
built = {name: models.build(name, in_channels=3, image_size=32, seed=0).eval() for name in claimed}
milliseconds = latency(built, image_shape=(3, 32, 32), repeats=profile.choose(ci=3, lesson=15, full=50)).milliseconds
print(f"on this machine the student takes {(milliseconds['student-net'] / milliseconds['teacher-net']).median():.2f} of its teacher's time")

# %% tags=["projector"]
pair_prediction.compare(metrics.paired_interval(students["distilled"], students["labels"]))

# %% [markdown]
# **What this says.** The distilled student is not told apart from labels alone. Labels that *stop earlier* are three quarters of a point ahead of labels, and on average less than half a point ahead of the distilled student, an interval that barely leaves out zero: without augmentation, fifty epochs of labels are too many.
# (A distilled student that stops earlier was not trained; all students have one teacher, and batches of 128 are our choice.) So accuracies without this control say nothing about distillation. The accuracy that the tutorial prints is not refuted: these files are not the original pixels.
#
# ## 3. What does a loss ask of a student?
#
# A loss is a wish. To read it, give it logits instead of a network, and go downhill: where it is lowest is what every student will be pulled to.
#
# ### Exercise: the logits that a loss asks for

# %% exercise="lowest_logits"

# %% [markdown]
# Now ask losses that were found in public code, written again in a line or two. The teacher's three classes are not exclusive for the second and third.

# %%
lowest = mine("lowest_logits", lowest_logits)
teacher_logits = torch.tensor([[2.0, -1.0, 0.5]])
asked = {
    "KL, mean over all numbers": (functools.partial(losses.reduction_as_found, temperature=4.0), torch.softmax),
    "KL of sigmoids": (losses.sigmoids_as_found, lambda logits, dim: logits.sigmoid()),
    "clamped cross-entropy": (losses.clamp_as_found, lambda logits, dim: logits.sigmoid()),
}
for words, (loss, answers) in asked.items():
    for start in (0.0, -25.0):
        found = lowest(loss, teacher_logits, torch.full((1, 3), start))
        said = [" / ".join(f"{one:.2f}" for one in answers(logits, dim=1)[0]) for logits in (teacher_logits, found)]
        print(f"{words:27}from {start:5}: teacher {said[0]}, student {said[1]}")

# %% [markdown]
# The second is lowest where every class is there, whatever the teacher says. The third has the right minimum, and a student that begins far below never gets there. The first looks fine: its fault is one of *size*.
#
# So a minimum is one question of several. The **loss doctor**, `examine`, asks ten: is it finite at large logits, does it pull there, who gets gradients, does it keep its size with classes, batch and temperature, and so on. Read the lines that say no.

# %%
examine(losses.sigmoids_as_found)

# %% [markdown]
# It knows no data and no network. It cannot tell you that a cache holds the answers of other images: for that there is the clinic.
#
# ## 4. The clinic
#
# Thirteen cases, nearly all from public code, each written again in a few lines with the same fault; the fold names its source. First you see a *symptom*, then the code: find the line, and write down its mending, before you unfold. One case is a **false alarm**: the
# report is wrong, and the code is right. The first five are losses; three of them you have met.

# %% tags=["projector"]
of_losses = ("reduction", "weights", "sigmoids", "clamp", "logarithm")
for name in of_losses:
    display(clinic.case(name).sheet())

# %% [markdown]
# Does the loss doctor find them, and is it content with the mended ones?

# %%
states, told = profile.choose(ci=["found"], lesson=["found", "mended"], full=["found", "mended"]), {}
for name in of_losses[: profile.choose(ci=2, lesson=None, full=None)]:
    told[name] = {state: examine(getattr(clinic.case(name), state)).complaints for state in states}
    print(f"{name:12}" + "; ".join(f"{state}: {', '.join(complaints) or 'no complaint'}" for state, complaints in told[name].items()))

# %% [markdown]
# The others sit in loops and schedules. `batches` gives the epoch, the number of the batch in it, and the positions of its images; `step` takes one step of the optimizer; `harder` moves images by `size` to where two networks disagree more.
# One code learns the temperature *against* the student (Li et al. 2022): its gradient is multiplied by a weight that goes from 0 to -1.

# %% tags=["projector"]
for case in clinic.cases():
    if case.name not in (*of_losses, "together"):
        display(case.sheet())

# %% [markdown]
# What does each defect cost a student? Predict three.

# %% tags=["projector"]
cache_prediction = predict(
    "The cache hands out the answers of other images. How far is the mended student ahead?",
    {"not at all": (None, 1), "one to ten points": (1, 10), "ten to thirty": (10, 30), "more": (30, None)})
reduction_prediction = predict(
    "The teacher's term is ten times too small. How far is the mended student ahead?",
    {"behind": (None, 0), "up to one point": (0, 1), "one to three": (1, 3), "more": (3, None)})
mode_prediction = predict(
    "The teacher answers in train mode, on images of its own kind. How far is the mended student ahead?",
    {"behind by more than two points": (None, -2), "less than two points apart": (-2, 2), "two to ten": (2, 10), "more": (10, None)})
display(cache_prediction, reduction_prediction, mode_prediction)

# %% [markdown]
# Try a case on students of your own: the loop as it was found, and mended.

# %%
def soft_targets(student_logits, answers):
    return losses.reduction_mended(student_logits, answers, temperature=4.0)


some = dataset.train.take(images, seed=0)
for state in ("found", "mended"):
    student = models.build("tiny-cnn", seed=0)
    optimizer = torch.optim.Adam(student.parameters(), 0.003)
    loop = getattr(clinic.case("cache"), state)
    loop(student, teacher, some.normalized(), soft_targets, optimizer, loops.batches(images, passes, seed=0))
    print(f"cache, {state:7}accuracy {metrics.accuracy(student.eval(), test):.1%}")

# %% [markdown]
# One case is left. Tutorial C lets a large network for colour images learn beside a small one, in the same steps. It has four faults. Three stop it, each hidden by the one before; the fourth stops nothing, and is found only by asking who gets which gradient. There may be fewer lines to change than faults.
#
# ### Exercise: repair a program that cannot run

# %% exercise="repair_co_training"

# %%
co_training = mine("repair_co_training", repair_co_training)
large = models.build("resnet8", num_classes=1000, in_channels=3, seed=0)
small = models.build("tiny-cnn", seed=0)
optimizers = [torch.optim.Adam(network.parameters(), 0.003) for network in (large, small)]
pixels = some.normalized()
for _, _, positions in loops.batches(images, profile.choose(ci=1, lesson=3, full=20), seed=0):
    of_large, of_small = co_training(large, small, *optimizers, pixels[positions], some.labels[positions])
print(f"last losses: teacher {of_large:.2f}, student {of_small:.2f}; student's accuracy {metrics.accuracy(small.eval(), test):.1%}")

# %% tags=["projector"]
clinic.case("together").sheet()

# %% tags=["projector"]
cache_prediction.compare(lesson10_gains.gain("cache"))

# %% tags=["projector"]
reduction_prediction.compare(lesson10_gains.gain("reduction"))

# %% tags=["projector"]
mode_prediction.compare(lesson10_gains.gain("mode"))

# %% tags=["figure"]
print(results.provenance("lesson10-clinic"))
effects = lesson10_gains.rows()
figure = Figure(figsize=(9.5, 6.2), layout="constrained")
axes = figure.subplots()
places = np.arange(len(effects))
gains = np.array([[100 * number for number in gain] for gain in effects["gain"]])
axes.plot(gains[:, 0], places, "o", color=figures.COLOURS["student"])
axes.hlines(places, gains[:, 1], gains[:, 2], color=figures.COLOURS["student"])
axes.axvline(0, color="0.6", zorder=0)
axes.set_xscale("symlog", linthresh=2, linscale=1)
axes.set(xlabel="points (linear up to 2, then logarithmic)", ylim=(len(effects) - 0.5, -0.5))
axes.set_xticks([-30, -10, -2, -1, 0, 1, 2, 10, 30, 70], [-30, -10, -2, -1, 0, 1, 2, 10, 30, 70])
axes.set_xlim(-40, 95)
axes.set_yticks(places, [lesson10_gains.words(row) for row in effects.itertuples()])
for name in ("mode", "best", "training on validation"):
    print(f"{name}: {lesson10_gains.effect(name)}")
figures.show(figure, "how far students are ahead, mean and 95 % interval of ten paired seeds; accuracy, but mean average precision for sigmoids. Rows without 'found' compare with another control.")

# %% [markdown]
# **What this says.** The price of a defect cannot be read off the code. A cache with other images' answers costs nearly everything, and a clamp too, once the learning rate is high; a "best" that is the last costs twenty points where the last epoch is bad (four
# labels in ten are wrong there). Exchanged weights cost about one. The wrong reduction costs a third of a point: it is an alpha of 0.47 for 0.9, and with alpha corrected nothing is left to mend. The logarithm costs *nothing*: its value is no number, its gradient is right, and a
# loop that does not look at its loss trains on, unharmed.
#
# A teacher in train mode teaches as well as one in eval mode, as far as can be told, while batches are of its own kind. It is its *own* accuracy that goes, by thirty points, when they are not. Training on validation reports a perfect score for a student that is wrong on every fifth image.
#
# And mending is not improving. The adversary, once it compares two networks, moves its images (here glyphs, signs of fonts, for want of garments) to where they disagree: students fall by more than eight points, nearly to chance, and images moved at random do better. The program of C, once it runs, is far behind labels, and further with a
# finished teacher; yet lesson 07 gained three points from that loss with a finished teacher, in another training. What a loss is worth is a statement about its training too, and "we fixed a bug" is a claim like any other.
#
# ## 5. How much does a search gain from nothing?
#
# A published study of teaching assistants (Mirzadeh et al. 2019) has public code that searches 20 weights, 6 temperatures and 3 *seeds*, and reports the best. We replay its grid: 360 distilled students, and beside them 360 students of labels alone that
# differ by their seed and *in nothing else*. What a search gains among these, it gains from nothing. (*Slope* below: how many points on the judges go with one point on the images that chose. That code also takes the best epoch on test, which we do not.)
#
# ### Exercise: what a search makes of luck

# %% exercise="gain_of_search"

# %% tags=["projector"]
claimed_prediction = predict(
    "A search takes the best of 120 of these students of labels by validation. How far is its validation accuracy above the mean of all?",
    {"up to half a point": (0, 0.5), "half a point to one": (0.5, 1), "one to two": (1, 2), "more": (2, None)})
fresh_prediction = predict(
    "And its accuracy on the 10,000 test images, which had no say?",
    {"below the mean": (None, 0), "up to one point": (0, 1), "one to two": (1, 2), "more": (2, None)})
display(claimed_prediction, fresh_prediction)

# %% tags=["projector"]
runs = results.read("lesson10-selection").assign(unseen=lambda table: (table["test"] + table["fresh"]) / 2)
scores = {arm: {split: rows[split].to_numpy() for split in ("validation", "test", "fresh", "unseen")} for arm, rows in runs.groupby("arm")}
nothing = scores["labels"]

# %%
own_gain, random = mine("gain_of_search", gain_of_search), np.random.default_rng(0)
for chosen_by, judged_by in (("validation", "validation"), ("validation", "unseen"), ("test", "test"), ("test", "fresh")):
    drawn = np.mean([own_gain(nothing[chosen_by], nothing[judged_by], 120, random) for _ in range(2000)])
    exact = expected_gain(nothing[chosen_by], nothing[judged_by], 120)
    slope = np.polyfit(nothing[chosen_by], nothing[judged_by], 1)[0]
    print(f"best of 120 by {chosen_by:11}judged on {judged_by:11}{100 * drawn:+.2f} points (yours), {100 * exact:+.2f} (all sets); slope {slope:.2f}")

# %% tags=["projector"]
claimed_prediction.compare(expected_gain(nothing["validation"], nothing["validation"], 120))

# %% tags=["projector"]
fresh_prediction.compare(expected_gain(nothing["validation"], nothing["unseen"], 120))

# %% tags=["projector", "figure"]
ARMS = {"labels": "students that differ by their seed alone", "distilled": "20 weights x 6 temperatures x 3 seeds"}
ROWS = {("validation", "validation"): "validation, which chose", ("validation", "unseen"): "test, which had no say",
        ("test", "test"): "half of test, which chose", ("test", "fresh"): "its other half, no say"}


def draw_search(figure):
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    colours = [figures.COLOURS[role] for role in ("label", "student") * 2]
    dots = {}
    for axes, (arm, words) in zip(panels, ARMS.items(), strict=True):
        dots[arm] = axes.scatter([0] * 4, range(4), c=colours, s=90)
        axes.set(xlim=(-0.3, 3.6), xlabel="winner above the mean of all (points)", ylim=(3.5, -0.5))
        axes.set_title(words, fontsize="medium")
        axes.set_yticks(range(4), ROWS.values())
        axes.axvline(0, color="0.7", zorder=0)
    title = figure.suptitle(" ")

    def update(*, search):
        for arm, own in dots.items():
            gains = [100 * expected_gain(scores[arm][by], scores[arm][on], search) for by, on in ROWS]
            own.set_offsets([(gain, place) for place, gain in enumerate(gains)])
        title.set_text(f"the best of {search} run{'s' * (search > 1)}")
        return [title, *dots.values()]

    return update

# %% tags=["figure"]
print(results.provenance("lesson10-selection"))
widgets.twin(draw_search, {f"{search} runs": {"search": search} for search in (3, 360)}, columns=1, size=(9.5, 3.2),
             caption="how far the winner of a search lies above the mean of all runs. Left, all gain is luck: compare what the images that chose say with what others say.")

# %% tags=["projector", "figure"]
widgets.strip(draw_search, search=[1, 2, 3, 6, 10, 20, 40, 60, 120, 200, 360], size=(9.5, 3.6), caption="the same with a slider: the size of the search.")

# %% [markdown]
# **What this says.** On the left, the winner shines on the images that chose, and much of it is gone on others. The slope says how much is left of each point: a fifth or so where 1,000 validation images chose, half where 5,000 test images did. So the larger the search, the more *points* are not
# there, and the smaller the set that chooses, the larger their share. And what is left belongs to a lucky *network*: another seed does not have it, and no method does.
#
# On the right settings differ, so much of the gain is real. Of all 360 the winner is *one* student, which happens to be good on the other half of test as well, where scores spread more: one winner is no mean of winners. A fair comparison searches as long for the control, chooses on validation, and reports fresh seeds of the winner on test.
#
# ## 6. A study to take apart, and an experiment of your own
#
# Somebody hands you this appendix, with a table and a conclusion. Eight of its lines are at fault; nothing crashes, and some lines look worse than they are.

# %% tags=["projector"]
display(study.listing())
print(results.provenance("lesson10-study"))
display(study.published(results.read("lesson10-study")))

# %% [markdown]
# ### Exercise: find its faults

# %% exercise="flawed_study"

# %% [markdown]
# Below, the same study with all eight lines mended, on ten paired seeds. Write the function that states its conclusion.
#
# ### Exercise: a new conclusion

# %% exercise="study_conclusion"

# %%
conclude = mine("study_conclusion", study_conclusion)
repaired = results.read("lesson10-study").query("kind == 'repaired'")
print(f"The study, mended: distilled is {conclude(repaired)}")

# %% [markdown]
# **What this says.** Of the published gain nearly nothing is left, but "not told apart" is not "no gain": the interval is seven points wide, and holds the three points that lesson 03 measured with 1,000 images. The study cannot decide it. The right conclusion is about the study, not about distillation.
#
# ### Exercise: test a claim yourself
#
# The laboratory is the one that you know. `check` judges the design.

# %%
lab = laboratory.Laboratory(profile)

# %% exercise="my_audit"

# %%
interval = mine("my_audit", my_audit)(lab)
print(lab, f"the difference on the test images: {plots.points(metrics.Interval(*interval))}", sep="\n")

# %% [markdown]
# ## Summary
#
# - Most claims can be checked by a count, a moment's computation or a recorded table. Few hold as they are stated; many lack a condition or a control.
# - By its own recipe the classic pair gains nothing from distillation that can be told apart from none; stopping earlier gains more.
# - Ask a loss what it wants before you train with it: its minimum, its size, its numbers, its gradients.
# - What a defect costs must be measured: some cost everything, some nothing, and mending may make students worse.
# - A search gains points from nothing, on the images that choose; report images, and seeds, that had no say.
#
# ### What is honest here, and what is not
#
# - The four texts are known to us by their claims; how we cut and read them decides the shares. Tolerances, such as a twentieth for a count, are ours.
# - Most comparisons are of small grey images. A claim on other data gets a verdict only where it names none.
# - The clinic has ten seeds and one set, settings that nobody tuned, and a short training where a large network answers in each step. "Ahead" and "not told apart" mean these seeds.
# - The adversary moves pixels of glyphs in one step, where the source trains a generator; the clamp and the best epoch were given trainings in which their fault can act.
# - The pair was trained on a GPU, on JPEG files, with one teacher for all students; the shorter training was tried for labels alone. Part of the grid was recorded on 16 lent cores.
# - The mended study still tunes one arm only: its temperature.
#
# ## Further
#
# ### All claims

# %% tags=["figure"]
from IPython.display import HTML

HTML(audit.as_html(audit.table()))

# %% [markdown]
# ### The eight faults, explained

# %%
study.explained()

# %% [markdown]
# ### Every effect of the clinic in one row

# %%
lesson10_gains.shown(effects)

# %% [markdown]
# ## Glossary
#
# - **Audit**: a table of claims, each with what it needs and what was measured.
# - **Loss doctor**: `examine`, ten questions to a loss. **Glyph**: a letter or sign of a font.
# - **Symptom**: what is seen of a defect first. **False alarm**: a report that is wrong about code that is right.
# - **Search from nothing**: a choice among runs that differ by luck alone.
# - **Fresh images**: those that no choice has looked at.
#
# ## References
#
# - G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network. 2015, arXiv 1503.02531.
# - Z. Li, X. Li, L. Yang, B. Zhao, R. Song, L. Luo, J. Li, J. Yang: Curriculum Temperature for Knowledge Distillation (CTKD). 2022, arXiv 2211.16231.
# - S. I. Mirzadeh, M. Farajtabar, A. Li, N. Levine, A. Matsukawa, H. Ghasemzadeh: Improved Knowledge Distillation via Teacher Assistant. 2019, arXiv 1902.03393.

# %%
# What this lesson claims, checked.
assert verdicts[audit.FAILS].drop("all").idxmax() == "size" and verdicts.loc["all"].sum() >= 40
advice = verdicts.loc["temperature and alpha"]
assert advice[audit.IN_PART] >= advice[audit.HOLDS] and 0.1 < share[audit.HOLDS] < 0.25 and 0.2 < share[audit.UNTESTED] < 0.4
assert audit.measure("A7").verdict in (audit.HOLDS, audit.IN_PART)
of_pair = {over: metrics.paired_interval(students["distilled"], students[over]) for over in ("labels", "labels, a third as long")}
assert of_pair["labels"].low < 0 < of_pair["labels"].high and of_pair["labels, a third as long"].high < 0
assert metrics.paired_interval(students["labels, a third as long"], students["labels"]).low > 0
assert all(bool(complaints) == (state == "found") for one in told.values() for state, complaints in one.items())

# %%
worth = {(row.case, row.arm, row.over): row for row in effects.itertuples()}
verdict_of = {key: row.verdict for key, row in worth.items()}
mean_of = {key: row.gain.mean for key, row in worth.items()}
assert mean_of["cache", "mended", "found"] > 0.6 and mean_of["best", "mended", "found"] > 0.15
assert mean_of["clamp", "mended, a higher rate", "found, a higher rate"] > 0.6 and 0.005 < mean_of["weights", "mended", "found"] < 0.02
assert 0.001 < mean_of["reduction", "mended", "found"] < 0.005 and verdict_of["reduction", "mended", "found, its alpha corrected"] == "not told apart"
assert mean_of["logarithm", "mended", "found"] == 0 and verdict_of["mode", "mended", "found"] == "not told apart"
clinic_means = results.read("lesson10-clinic").groupby(["case", "arm"])[["accuracy", "reported", "teacher"]].mean()
assert clinic_means.loc[("mode", "found, images of another kind"), "teacher"] < clinic_means.loc[("mode", "mended"), "teacher"] - 0.25
assert clinic_means.loc[("training on validation", "found"), "reported"] > 0.999 and clinic_means.loc[("training on validation", "found"), "accuracy"] < 0.79
assert mean_of["together", "the finished teacher, same loss", "labels"] < mean_of["together", "mended", "labels"] < -0.1
assert mean_of["adversary", "mended", "found"] < -0.08 and clinic_means.loc[("adversary", "mended"), "accuracy"] < 0.13
assert verdict_of["adversary", "mended", "found"] == verdict_of["adversary", "mended", "moved at random"] == "hurts"
assert verdict_of["false alarm", "after the change that it suggests", "as it stands"] == "not told apart"

# %%
slopes = [np.polyfit(nothing[by], nothing[on], 1)[0] for by, on in (("validation", "unseen"), ("test", "fresh"))]
assert 0.12 < slopes[0] < 0.28 and 0.4 < slopes[1] < 0.65
for by, on in (("validation", "unseen"), ("test", "fresh")):
    assert all(expected_gain(nothing[by], nothing[on], size) < 0.75 * expected_gain(nothing[by], nothing[by], size) for size in (3, 18, 120, 360))
reported = study.published(results.read("lesson10-study"))
honest = repaired.pivot(index="seed", columns="arm", values="accuracy")
assert reported.ours - reported.base > metrics.paired_interval(honest["distilled"], honest["labels"]).mean + 0.03
assert metrics.paired_interval(honest["distilled"], honest["labels"]).low < 0.03 < metrics.paired_interval(honest["distilled"], honest["labels"]).high
