"""Where things lie in a planted lesion: the places of the concepts, and the coordinates of the pixels."""

import numpy as np

PATCH, DOTS, BORDER, HAIR, RULER, BUBBLE = range(6)


def coordinates(size=32):
    ticks = (np.arange(size) + 0.5) * 2 / size - 1
    return np.meshgrid(ticks, ticks)
