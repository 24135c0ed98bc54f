# %% [markdown]
# # Few-shot images, with "none of these"
#
# Learn to recognise characters that were never seen in the training from one to five examples each, with
# probabilities that mean what they say, and an answer for images that belong to no class at all.
#
# A catalogue of parts, a station that counts species, a scanner of forms: the classes of next month are not those of
# the training. *Few-shot classification* trains on many small tasks, each with its own classes, so that what is
# learned is how to tell *new* classes apart from a few labelled examples. In use there is one more question, which a
# softmax cannot answer: is this image of any of the classes that I know? A prototypical network can, as it has a
# density for a class that nobody showed.
#
# Nothing is downloaded here: the characters are drawn in the tutorial.

# %% [markdown]
# ## Invented characters
#
# A character is two to four curved strokes. Each time it is written its control points wobble, and the whole is
# turned, slanted and shifted a little. The pictures have 20 by 20 pixels. `ImageClasses` holds images with their
# classes.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import to_rgb

import bayesmeta as bm
from bayesmeta.plotting.style import BLUE, GREY, ORANGE, SKY, VERMILLION

SIZE = 20
CHARACTERS = 120  # smoke: 48
WRITTEN = 20  # smoke: 12
generator = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(shape, generator=generator)


def write(strokes, times):
    """The same character, written so many times: `times x 1 x 20 x 20`, 0 is paper and 1 is ink."""
    wobbled = strokes + 0.09 * normal(times, *strokes.shape)  # times, strokes, 3 control points, 2
    t = torch.linspace(0.0, 1.0, 16)[:, None]
    start, bend, end = wobbled[:, :, None].unbind(-2)
    points = ((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end).flatten(1, 2)
    matrix = torch.eye(2) + 0.12 * normal(times, 2, 2)
    points = points @ matrix + 0.08 * normal(times, 1, 2)
    axis = torch.linspace(-1.3, 1.3, SIZE)
    pixels = torch.cartesian_prod(axis, axis)
    distance = torch.cdist(pixels.expand(times, -1, -1), points).amin(-1)
    return torch.exp(-((distance / 0.11) ** 2)).reshape(times, 1, SIZE, SIZE)


characters = [
    2 * torch.rand(int(count), 3, 2, generator=generator) - 1
    for count in torch.randint(2, 5, (CHARACTERS,), generator=generator)
]
pixels = torch.cat([write(strokes, WRITTEN) for strokes in characters])
images = bm.tasks.ImageClasses.from_arrays(pixels, torch.arange(CHARACTERS).repeat_interleave(WRITTEN))
known_images, test_images = images.split(test=0.4, seed=0)
train_images, calibration_images = known_images.split(test=0.25, seed=0)
print(train_images, "to learn from")
print(calibration_images, "to calibrate with")
print(test_images, "that are new")


# %%
# alt: Six invented characters in rows, each written eight times; the copies differ by wobbling strokes and slant.
def mosaic(rows, gap=2):
    """Pictures side by side as one image, ink on transparent paper."""
    padded = [[np.pad(each.squeeze(0).numpy(), gap) for each in row] for row in rows]
    ink = np.concatenate([np.concatenate(row, 1) for row in padded], 0)
    return np.dstack([np.broadcast_to(to_rgb(BLUE), (*ink.shape, 3)), ink])


rows = [test_images.images[test_images.labels == label][:8] for label in range(6)]
figure, ax = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
ax.imshow(mosaic(rows), interpolation="nearest")
ax.set(xticks=[], yticks=12 + 24 * np.arange(6), yticklabels=[f"character {label + 1}" for label in range(6)])
ax.tick_params(length=0)
ax.spines[:].set_visible(False);
# %% [markdown]
# The division is by class: none of the characters on which the learner is judged occurs in its training.

# %% [markdown]
# ## Episodes, and a network that learns from them
#
# An *episode* is a small task: five characters, some labelled pictures of each (the *support*), and further pictures
# to recognise (the *query*). The learner maps each picture to 64 features by three convolutional blocks, and
# describes each class as a Gaussian around a mean of its own. Classes with few examples get wider Gaussians. With
# `shots=(1, 5)` half of the episodes have unequal numbers of examples, from which it learns how wide.

# %%
STEPS = 300  # smoke: 2
torch.manual_seed(0)
learner = bm.Prototypical(bm.networks.ConvNet((1, SIZE, SIZE), channels=16, blocks=3))
episodes = bm.tasks.Episodes(train_images, ways=5, shots=(1, 5))
result = bm.fit(learner, episodes, STEPS, batch_size=4, lr=3e-3, split=bm.tasks.ClassSplit((1, 5), 5), progress=False)
print(f"{sum(p.numel() for p in learner.parameters()):,} weights; {result}")

# %% [markdown]
# ## Is it right, and does it know when?
#
# 200 episodes of new characters. `unseen=1` takes one of six classes out of each support, so that its pictures are of
# none of the classes. `accuracy`, `nll` and the calibration error are of the five known classes; the two columns of
# AUROC say how well the pictures of the sixth are told from the others (0.5 is chance, 1 is perfect): by the density,
# and by the largest class probability, which is what one would use with any classifier.

# %%
TEST_TASKS = 200  # smoke: 3
test = bm.tasks.Episodes(test_images, ways=6).dataset(TEST_TASKS, per_class=10, seed=1)
evaluation = bm.evaluate(learner, test, shots=[1, 2, 5], split=bm.tasks.ClassSplit, query=5, unseen=1)
print(evaluation)
evaluation.table()[["accuracy", "nll", "ece", "none_auroc", "max_prob_auroc"]].round(3)

# %% [markdown]
# Chance would be right in 20 % of the cases. The reliability diagram compares the confidence of the answers with the
# share of them that is right.

# %%
# alt: Reliability diagram for one, two and five examples a class: the share of right answers lies near the diagonal over all confidences.
bm.plotting.reliability_diagram(evaluation).set_title("five known characters");
# %% [markdown]
# The lines stay near the diagonal: of the answers given with 80 % confidence about 80 % are right. That is the reason
# to keep probabilities in a few-shot learner and not only a ranking: with one example a class many answers *are*
# uncertain.

# %% [markdown]
# ## One task in detail
#
# Five new characters with three examples each, and eight pictures to recognise, of which the last three are of other
# characters. `predict(...).probs` says which class it is *if* it is one of them. `none_of_these(prior)` says whether
# it is, by Bayes' rule, given the share of strangers that you expect before you look.

# %%
KNOWN, EXAMPLES = 5, 3
of = lambda label: test_images.images[test_images.labels == label]
support = torch.cat([of(label)[:EXAMPLES] for label in range(KNOWN)])
labels = torch.arange(KNOWN).repeat_interleave(EXAMPLES)
posterior = learner.adapt(bm.Data.from_labels(support, labels))

query = torch.cat([of(label)[5:6] for label in range(KNOWN)] + [of(label)[5:6] for label in range(KNOWN, KNOWN + 3)])
prediction = posterior.predict(query)
none = prediction.none_of_these(prior=0.25)[0]
joint = torch.cat([prediction.probs[0] * (1 - none)[:, None], none[:, None]], -1)
table = pd.DataFrame(joint.numpy(), columns=[*(f"character {c + 1}" for c in range(KNOWN)), "none of these"]).round(2)
table.index = [*(f"character {c + 1}" for c in range(KNOWN)), *["another"] * 3]
table.rename_axis("picture of")

# %%
# alt: Eight pictures, and below each bars with the probability of each of the five characters and of none of these; for the first five the bar of the right character is at one. For the last three, which are of other characters, a known character has the highest bar, too, and none of these is near zero.
figure, axes = plt.subplots(2, 1, figsize=(6.8, 3.4), height_ratios=[1, 2.2], layout="constrained")
axes[0].imshow(mosaic([query]), interpolation="nearest", aspect="equal")
axes[0].axis("off")
places = np.arange(len(query))
for number, column in enumerate(table.columns):
    last = column == "none of these"
    axes[1].bar(
        places - 0.36 + 0.13 * number,
        table[column],
        0.12,
        color=VERMILLION if last else SKY,
        label=column if last else ("known characters 1 to 5" if number == 0 else None),
    )
axes[1].set(
    xticks=places,
    xticklabels=[f"is {name.split()[-1]}" if "char" in name else "other" for name in table.index],
    ylabel="probability",
    ylim=(0, 1.25),
    xlim=(-0.5, len(query) - 0.5),
)
axes[1].legend(fontsize="small", ncols=2, loc="upper left");
# %% [markdown]
# The five known characters are recognised. The three strangers are not: `none_of_these` stays near zero, and the
# answers are sure. Is that bad luck, or a rule?
#
# ## Can the "none of these" be believed?
#
# A probability is good if it comes true as often as it says. In the test episodes one picture in six is a stranger,
# so that this is the prior to give. Sorted by what was predicted, the share of strangers should follow.


# %%
def with_strangers(source, seed):
    """Episodes with three examples of five classes, and pictures of six: predictions, and who is a stranger."""
    batch = source.divided(bm.tasks.ClassSplit.at(EXAMPLES, query=5), seed)
    shown = batch.support.y != 5
    x = batch.support.x[shown].reshape(len(source), -1, 1, SIZE, SIZE)
    posterior = learner.adapt(bm.Data.full(x, batch.support.y[shown].reshape(len(source), -1)))
    return posterior.predict(batch.query.x), batch.query.y == 5, batch.query.y


def believed(probability, stranger):
    frame = pd.DataFrame({"none": probability.flatten().numpy(), "stranger": stranger.flatten().numpy()})
    grouped = frame.groupby(pd.cut(frame.none, [0, 0.02, 0.1, 0.3, 0.6, 0.9, 1.0], include_lowest=True), observed=True)
    return pd.DataFrame({"pictures": grouped.size(), "predicted": grouped.none.mean(), "came true": grouped.stranger.mean()})


prediction, stranger, labels = with_strangers(test, seed=2)
believed(prediction.none_of_these(prior=1 / 6), stranger).round(3)

# %% [markdown]
# It cannot, yet. The order is right, as the AUROC above has shown, but the numbers are far too small: of the pictures
# that got a few per cent most were strangers. That is no surprise. The episodes of the training contain no strangers,
# so nothing has taught the network how far its features of a *new* class lie from those it knows.
#
# The cure takes some classes that the network has not seen, which is what the calibration part is for. The prediction
# holds `log_ratio`, the log of how much better the known classes explain a picture than a new one would. On episodes
# of the calibration classes, two numbers are fitted, a slope and an offset (logistic regression, after Platt 1999).

# %%
CALIBRATION_TASKS = 200  # smoke: 4
CALIBRATION_STEPS = 300  # smoke: 3
calibration = bm.tasks.Episodes(calibration_images, ways=6).dataset(CALIBRATION_TASKS, per_class=10, seed=3)
seen, is_stranger, _ = with_strangers(calibration, seed=4)
slope, offset = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
ratio, prior_odds = seen.log_ratio.detach().float(), torch.tensor(1 / 5).log()
optimiser = torch.optim.Adam([slope, offset], lr=0.1)
for _ in range(CALIBRATION_STEPS):
    optimiser.zero_grad()
    odds = prior_odds - slope * ratio - offset
    torch.nn.functional.binary_cross_entropy_with_logits(odds, is_stranger.float()).backward()
    optimiser.step()
slope, offset = slope.item(), offset.item()


def none_of_these(prediction, prior):
    """The same by Bayes' rule, with the log ratio that was calibrated."""
    prior = torch.tensor(prior)
    return torch.sigmoid(prior.log() - (-prior).log1p() - slope * prediction.log_ratio - offset)


none = none_of_these(prediction, 1 / 6)
print(f"slope {slope:.2f}, offset {offset:.2f}")
believed(none, stranger).round(3)

# %% [markdown]
# Now what was predicted is near what came true, on test classes that took no part in the fit; in the middle it is
# still a little low. The slope is below one: the features had claimed more evidence than they have.

# %%
# alt: Histograms of the calibrated probability of none of these: of known characters nearly all lie near zero, of strangers most lie above one half, with some spread between.
figure, ax = plt.subplots(figsize=(6.0, 2.8), layout="constrained")
edges = np.linspace(0.0, 1.0, 21)
for picked, colour, name in ((~stranger, BLUE, "known characters"), (stranger, ORANGE, "strangers")):
    ax.hist(none[picked].numpy(), edges, density=True, color=colour, alpha=0.6, label=name)
ax.set(xlabel="calibrated probability of none of these", ylabel="density")
ax.legend();

# %% [markdown]
# With that a rule of use is a line: answer if the best of the six is probable enough, and pass the picture to a
# person if it is not.

# %%
chances = torch.cat([prediction.probs * (1 - none)[..., None], none[..., None]], -1)
best, answer = chances.max(-1)
right = answer == labels
rules = {}
for threshold in (0.0, 0.6, 0.8, 0.95):
    answered = best >= threshold
    rules[threshold] = {
        "answered": answered.double().mean().item(),
        "right among them": right[answered].double().mean().item(),
    }
pd.DataFrame(rules).T.rename_axis("answer from").round(3)

# %% [markdown]
# Reading down: the fewer pictures are answered, the more of the answers are right, and the threshold is a promise
# that can be checked against the last column.
#
# ## Which characters are confused?

# %%
# alt: Confusion table of ten new characters with their pictures along the sides; nearly all counts lie on the diagonal.
TEN = 10  # smoke: 6
support = torch.cat([of(label)[:EXAMPLES] for label in range(TEN)])
posterior = learner.adapt(bm.Data.from_labels(support, torch.arange(TEN).repeat_interleave(EXAMPLES)))
rest = torch.cat([of(label)[EXAMPLES:] for label in range(TEN)])
truth = torch.arange(TEN).repeat_interleave(WRITTEN - EXAMPLES)
guess = posterior.predict(rest).probs[0].argmax(-1)
confusion = torch.zeros(TEN, TEN, dtype=torch.long).index_put((truth, guess), torch.tensor(1), accumulate=True)
figure, ax = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
pictures = [of(label)[0] for label in range(TEN)]
ax.imshow(mosaic([pictures]), extent=(-0.5, TEN - 0.5, -0.6, -1.6), interpolation="nearest")
ax.imshow(mosaic([[each] for each in pictures]), extent=(-1.6, -0.6, TEN - 0.5, -0.5), interpolation="nearest")
for (row, column), count in np.ndenumerate(confusion.numpy()):
    if count:
        ax.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            fontweight="bold" if row == column else "normal",
            color="black" if row == column else VERMILLION,
        )
ax.set(xlim=(-1.7, TEN - 0.5), ylim=(TEN - 0.5, -1.7), xticks=[], yticks=[], xlabel="answered", ylabel="written")
ax.spines[:].set_color(GREY)
print(f"{(truth == guess).double().mean():.0%} of {len(truth)} pictures right, ten ways, three examples each")

# %% [markdown]
# A task may have any number of classes: this one has twice as many as the episodes of the training, and needs no new
# training.
#
# ## What was learned
#
# - Episodes train a network for classes that do not exist yet; `ClassSplit` says how many examples of each it is
#   shown.
# - `Prototypical` has a Gaussian for each class, and one for a class that nobody showed. So its predictions have
#   `none_of_these(prior)`, and `evaluate(..., unseen=1)` judges them.
# - Probabilities of classes and of strangers are to be checked separately, by a reliability diagram and by a table of
#   predicted and observed shares.
# - The prior share of strangers is yours to give: change it where strangers are rarer or more common than one in six.
#
# Where to go next: [prototypical networks](../methods/prototypical.md), with the equations and what unequal classes
# need; [R2-D2](../methods/r2d2.md) and [infinite mixture prototypes](../methods/infinite_mixture_prototypes.md) for
# classes that are not one cloud; [images](../concepts/tasks.md#images) for your own folders and Omniglot; and
# [calibration](../concepts/calibration.md).
