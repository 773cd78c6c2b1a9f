"""How fast attacks, training steps, maps and metrics are: every attack, batch and dtype that a paper might quote.

    python launch.py --mode=benchmark --config=configs/benchmark.py --workdir=runs/benchmark
    python launch.py --mode=benchmark --config=configs/benchmark.py:full --workdir=runs/benchmark

'full' is for an accelerator: ResNet-18 at 32 px in batches of 1,024. A table of each part, benchmark.json with hardware
and versions, and benchmark.png come out; what came out where is in docs/results.md.
"""

from configs import common


def get_config(size: str = "small"):
    common.check_size(size)
    config = common.default()
    config.title = "Throughput"
    config.description = "Attacks, training steps, maps and metrics beside the passes that they cannot do without."
    config.benchmark.attacks = ("pgd", "apgd", "fgsm")
    config.benchmark.models = ("small_cnn", "resnet18")
    config.benchmark.batch_sizes = (32, 128)
    if size == "full":
        config.benchmark.dtypes = ("float32", "bfloat16")  # which a CPU computes in float32, with more work
        config.benchmark.batch_size = 1024
        config.benchmark.batch_sizes = (128, 1024)
        config.benchmark.models = ("small_cnn", "resnet18", "resnet50")
    return config
