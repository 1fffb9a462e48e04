# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Detect and explain
#
# A detector finds segments that no known class explains, decides for each whether it is a false alarm, and says why.
# The package carries a small detector and three drawn photos; yours is the folder that the stage `detector` writes.

# %%
import numpy as np
from PIL import Image

from meta_ood import Detector
from meta_ood.data.overlays import score_map
from meta_ood.detector.demo import DETECTOR, PHOTOS
from meta_ood.detector.detector import Segment

detector = Detector.load(DETECTOR)
found = detector(PHOTOS / "cone.png")  # or a PIL image, or an array (H, W, 3) uint8

# %% [markdown]
# ## What it sees
#
# The photo, the score of each pixel (entropy, from dark = sure to bright = unsure), and the segments: pixels whose
# score reaches the threshold. Orange ones are kept, blue ones are removed as false alarms.

# %%
seen = np.hstack([found.image, score_map(found.score), found.overlay()])
Image.fromarray(seen).resize((2 * seen.shape[1], 2 * seen.shape[0]), Image.Resampling.NEAREST)

# %%
kept = [segment for segment in found.segments if segment.kept]
removed = [segment for segment in found.segments if not segment.kept]
print(f"{len(found.segments)} segments: {len(kept)} kept, {len(removed)} removed as false alarms")
print(f"a pixel is unsure from {detector.settings.score} {detector.settings.threshold} on")
print(f"promised on ordinary frames: {detector.settings.promise.text}")

# %% [markdown]
# ## Why
#
# The meta classifier is linear in features with names, so each of them adds its part to the log odds of a false alarm.
# The three largest are the reasons: positive ones speak for a false alarm, negative ones against it.


# %%
def explain(segment: Segment) -> None:
    """Print a decision and its reasons."""
    top, left, bottom, right = segment.box
    decision = "kept" if segment.kept else "removed"
    print(f"{decision}: {segment.size} px in rows {top} to {bottom}, columns {left} to {right}")
    print(f"  probability of a false alarm {segment.false_alarm:.3f}")
    for reason in segment.reasons:
        print(f"  {reason['log_odds']:+6.2f}  {reason['description']}: {reason['value']:.3g}")
    if segment.unlike_training:
        print(f"  unlike the segments of training in: {segment.farthest['description']}")


explain(max(kept, key=lambda segment: segment.size))
explain(max(removed, key=lambda segment: segment.size))

# %% [markdown]
# The larger removed segment is a real object, the white cone: a miss. A budget of false alarms decides how many of
# those there are ([choose an operating point](../docs/operating-point.md)).
#
# ## Another threshold
#
# Segments carry their probability, so that a stricter or a more generous decision needs no second pass.

# %%
for limit in (0.9, 0.5, 0.1, 0.01):
    count = sum(segment.false_alarm <= limit for segment in found.segments)
    print(f"P(false alarm) at most {limit}: {count} of {len(found.segments)} segments")

# %% [markdown]
# `meta-ood detect PHOTOS --detector FOLDER` writes the same for whole folders ([your own
# photos](../docs/own-photos.md)), `meta-ood serve FOLDER` answers over HTTP ([serve](../docs/serve.md)).
