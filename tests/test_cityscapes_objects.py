"""Cityscapes' objects, from the instanceIds files."""

import os

import numpy as np
import pytest
from PIL import Image
from small_datasets import write_cityscapes

from minifcn.data import AMBIGUOUS, CITYSCAPES_CLASSES, Cityscapes, open_dataset
from minifcn.errors import InputError, MissingFileError

CAR, BICYCLE = CITYSCAPES_CLASSES.index("car"), CITYSCAPES_CLASSES.index("bicycle")


def write(root):
    """The tree of write_cityscapes, cars (26) told apart by odd and even columns, bicycles (33) a group. -> {id: ids of its objects}"""
    written = {}
    for id, ids in write_cityscapes(root, cities=("ulm",), splits=("train",)).items():
        even = np.arange(ids.shape[1]) % 2 == 0
        objects = np.where(ids == 26, 26000 + np.where(even, 7, 2), ids).astype(np.uint16)
        Image.fromarray(objects).save(root / f"gtFine/train/ulm/{id}_gtFine_instanceIds.png")
        written[id] = objects
    return written


def test_objects_and_groups(tmp_path):
    ((id, ids),) = write(tmp_path).items()
    plain, told = Cityscapes(tmp_path), open_dataset(tmp_path, instances=True)
    assert plain[0].instances is None
    sample = told[0]
    np.testing.assert_array_equal(sample.label, plain[0].label)
    expected = np.where(ids == 26002, 1, np.where(ids == 26007, 2, np.where(ids == 33, AMBIGUOUS, 0)))
    assert sample.instances.dtype == np.uint16 and set(np.unique(expected)) == {0, 1, 2, AMBIGUOUS}
    np.testing.assert_array_equal(sample.instances, expected)
    assert (sample.label[sample.instances == 1] == CAR).all() and (sample.label[expected == AMBIGUOUS] == BICYCLE).all()
    assert [CITYSCAPES_CLASSES[c] for c in told.things] == list(CITYSCAPES_CLASSES[11:])


@pytest.mark.parametrize(
    "spoil, told",
    [
        (lambda ids: ids[1:], "got another size"),
        (lambda ids: np.where(ids == 26007, 24007, ids), r"other labels in \d+ pixels"),
        (lambda ids: np.where(ids == 26007, 65535, ids), r"other labels in \d+ pixels"),
    ],
)
def test_objects_that_are_not_of_the_labels_are_refused(tmp_path, spoil, told):
    ((id, ids),) = write(tmp_path).items()
    Image.fromarray(spoil(ids).astype(np.uint16)).save(tmp_path / f"gtFine/train/ulm/{id}_gtFine_instanceIds.png")
    with pytest.raises(
        InputError, match=rf"{id}_gtFine_instanceIds\.png: expected the objects of {id}_gtFine_labelIds\.png, .*{told}"
    ):
        Cityscapes(tmp_path).with_instances()[0]


def test_missing_objects_are_named_at_construction(tmp_path):
    write_cityscapes(tmp_path)
    with pytest.raises(MissingFileError, match=r"_gtFine_instanceIds\.png: no such file"):
        open_dataset(tmp_path, instances=True)


@pytest.mark.skipif("MINIFCN_CITYSCAPES" not in os.environ, reason="MINIFCN_CITYSCAPES names no folder")
def test_real_objects():
    told = Cityscapes(os.environ["MINIFCN_CITYSCAPES"]).with_instances()
    counts = {sample.id: len(np.setdiff1d(sample.instances, [0, AMBIGUOUS])) for sample in told}
    assert counts == {"aachen_000000_000019": 13, "aachen_000001_000019": 14, "bochum_000000_000313": 13}
    for sample in told:
        assert np.isin(sample.label[sample.instances > 0], told.things).all()
