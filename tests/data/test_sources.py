"""Sources: readers are imported on demand, planted lesions are one of them, and bad fields are named."""

import subprocess
import sys

import numpy as np
import pytest

from robust_saliency.data import DataSpec, PlantedLesions, load
from tests.data.fabricated import everything


def test_importing_the_package_imports_no_reader():
    readers = ("tensorflow_datasets", "grain", "PIL", "tensorflow")
    code = f"import sys, robust_saliency.data; print([m for m in {readers} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_planted_lesions_are_rendered_in_the_asked_number_and_size():
    counts = {"num_train": 12, "num_validation": 6, "num_test": 9}
    spec = DataSpec(**counts, image_size=32, seed=3, planted=PlantedLesions(size=48))
    data = load(spec)
    assert [len(split) for split in data[:3]] == [12, 6, 9]
    assert data.image_shape == (32, 32, 3) and len(data.concept_names) == 6
    example = data.train.gather(np.array([4, 0]))
    assert {name: array.shape for name, array in example.items()} == {
        "image": (2, 32, 32, 3), "label": (2,), "id": (2,), "lesion_mask": (2, 32, 32),
        "evidence_mask": (2, 32, 32), "concepts": (2, 32, 32, 6),
    }  # fmt: skip
    np.testing.assert_array_equal(example["id"], [4, 0])
    again = load(spec)
    np.testing.assert_array_equal(everything(again.test)["image"], everything(data.test)["image"])
    two = load(DataSpec(**counts, image_size=32, seed=3, classes=("melanoma", "nevus")))
    everyone = everything(data.test)
    kept = everyone["label"] < 2
    np.testing.assert_array_equal(everything(two.test)["label"], 1 - everyone["label"][kept])
    np.testing.assert_array_equal(everything(two.test)["id"], everyone["id"][kept])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_train": 3, "num_validation": 1, "num_test": 1, "classes": ("nevus", "melanoma")},
            "The test split is empty: data.num_test 1 with data.classes nevus, melanoma gives it no example",
        ),
        (
            {"num_train": 2, "num_validation": 3, "num_test": 3, "class_balanced": True},
            "class_balanced needs training examples of every class, but there is none of 'nevus'",
        ),
    ],
)
def test_too_few_planted_lesions_are_told_when_they_are_loaded(changes, message):
    with pytest.raises(ValueError, match=message):
        load(DataSpec(**changes))


@pytest.mark.parametrize(
    "changes",
    [{"in_memory": "maybe"}, {"channels": 4}, {"validation_fraction": 0.0}, {"classes": ("a", "a")}, {"num_test": -1},
     {"batch_size": 0}, {"seed": -1}, {"equal_classes": ("tset",)}, {"equal_classes": ("test",)}],
)  # fmt: skip
def test_a_field_out_of_range_is_refused_by_name(changes):
    (field,) = changes
    with pytest.raises(ValueError, match=f"data.{field}"):
        DataSpec(**changes)
