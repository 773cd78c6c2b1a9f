"""Convolutions of few channels and of many as the networks run them on CPU, over jax's own, in turns: JSON lines."""

import argparse
import json
import os
import sys

import jax
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from robust_saliency import environment, memory, timing
from robust_saliency.models.convolution import conv_general_dilated
from robust_saliency.models.windows import AXES

# channels in and out, kernel, stride, side: stems of grey and coloured images, their gradients, narrow and wide layers
LAYERS = [
    *((channels, features, 3, 1, 32) for channels in (1, 3) for features in (8, 16, 32, 64)),
    *((channels, features, 5, 2, 32) for channels in (1, 3) for features in (16, 32)),
    *((channels, 3, 3, 1, 32) for channels in (8, 16, 32)),
    *((channels, channels, 3, 1, 32) for channels in (8, 12, 16, 24, 32, 64)),
    *((channels, channels, 3, 1, side) for channels, side in ((64, 16), (128, 16), (128, 4), (256, 8), (512, 4))),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    words = parser.parse_args()
    memory.keep_freed()  # as launch.py does
    print(
        json.dumps(
            {"hardware": environment.hardware(), "versions": environment.versions(), "command": environment.command()}
        )
    )
    for layer in LAYERS:
        row = dict(zip(("channels", "features", "kernel", "stride", "side"), layer, strict=True))
        print(json.dumps(row | timed(layer, words.images, words.rounds)), flush=True)


def timed(layer, images: int, rounds: int) -> dict[str, float]:
    channels, features, kernel, stride, side = layer
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, side, side, channels)).astype(np.float32)
    k = rng.normal(size=(kernel, kernel, channels, features)).astype(np.float32)
    padding = ((kernel // 2, (kernel - 1) // 2),) * 2
    programs = []
    for conv in (conv_general_dilated, jax.lax.conv_general_dilated):

        def program(x, k, conv=conv):
            return jax.nn.relu(conv(jax.nn.relu(x), k, (stride, stride), padding, dimension_numbers=AXES))

        programs.append(timing.compiled(program, x, k)[0])
    ours, plain = programs
    np.testing.assert_allclose(ours(x, k), plain(x, k), atol=1e-3)
    seconds, ratio = timing.in_turns(lambda: ours(x, k), lambda: plain(x, k), rounds)
    return {"seconds": round(seconds, 6), "times_as_fast": round(1 / ratio, 2)}


if __name__ == "__main__":
    main()
