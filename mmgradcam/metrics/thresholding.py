"""How well a map's extent fits its object: Otsu's threshold, and the Token Activation Map paper's three formulas.

The paper's figures depend on its protocol, too: the model's own greedy captions, nouns matched by lemma to COCO's 80 classes,
the best token of a word, neighbours of one object merged, COCO's semantic masks. Without it, figures do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmgradcam.errors import InputError
from mmgradcam.metrics.localization import Heat, Mask, alike


def otsu(heat: Heat) -> float:
    """The threshold that parts a map's values into two classes of the largest variance between them.

    On 256 equal bins from the minimum to the maximum. It is the largest value of the lower class, as OpenCV's on maps of
    8 bits, which the Token Activation Map code calls; scikit-image's threshold_otsu of a map gives the middle of that
    value's bin, above which lie some pixels of the lower class.

    Args:
        heat: (H, W).

    Returns:
        In the heat's units; foreground is what lies above it. An even map has its one value, so no foreground.

    Source: Otsu 1979, "A Threshold Selection Method from Gray-Level Histograms".

    >>> otsu(np.array([[0, 0.25, 0.25], [0, 0.9, 1.0]], np.float32))
    0.25
    """
    from skimage.filters import threshold_otsu

    low, high = float(heat.min()), float(heat.max())
    if low == high:
        return low
    counts, edges = np.histogram(heat, 256, (low, high))
    best = int(threshold_otsu(hist=(counts, np.arange(256))))
    return float(heat[heat < edges[best + 1]].max())


def obj_iou(heat: Heat, mask: Mask) -> float:
    """Obj-IoU of one noun: intersection over union of its map, cut at Otsu's threshold, and its object.

    Args:
        heat: (H, W).
        mask: (H, W), the union of all things of the noun's class. A noun whose class is not in the picture is left out of
            the mean in the paper's code, though its threshold still counts for `func_iou`.

    Returns:
        0..1; the paper prints the mean over nouns in percent. It takes the best token of a word, and the better of two
        nouns in a row of one class.

    Source: Li et al. 2025, "Token Activation Map to Visually Explain Multimodal LLMs", and `evaluate` of its code.
    """
    alike(heat, mask)
    shown = heat > otsu(heat)
    whole = int((shown | mask).sum())
    return int((shown & mask).sum()) / whole if whole else 0.0


def func_iou(heats: Sequence[Heat], threshold: float) -> float:
    """Func-IoU of one caption: the share of pixels below the nouns' threshold in the maps of its function words.

    All of a function word's map should be background, so that this share is also its intersection over union.

    Args:
        heats: the maps of function words ("a", "the", "and"; the paper's code leaves out prepositions and numbers), on the
            nouns' scale. There each map is scaled together with the scores of the words before it, not to a maximum of 1
            of its own; a map that is reaches the threshold somewhere, whatever its word.
        threshold: the mean of `otsu` over the maps of the caption's nouns.

    Returns:
        0..1, the mean over the function words.

    Source: as `obj_iou`.

    >>> func_iou([np.array([[0.1, 0.6]], np.float32), np.array([[0.2, 0.3]], np.float32)], threshold=0.5)
    0.75
    """
    if not heats:
        raise InputError("expected the maps of function words, got none; leave such captions out of the mean")
    return float(np.mean([(heat < threshold).mean() for heat in heats]))


def f1_iou(obj: float, func: float) -> float:
    """F1-IoU: the harmonic mean of a data set's mean Obj-IoU and mean Func-IoU; 0 where both are.

    >>> round(f1_iou(27.37, 68.44), 2)  # the paper's own figures; it prints 39.10
    39.1
    """
    return 2 * obj * func / (obj + func) if obj + func > 0 else 0.0
