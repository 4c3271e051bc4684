"""DVS128-Gait: text parser, folder layout, errors."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from snnjax import data
from snnjax.data._dvs128_gait import parse_gait

pytestmark = pytest.mark.fast
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2**31 - 1), st.integers(0, 127), st.integers(0, 127), st.integers(0, 1)
    ),
    min_size=1,
    max_size=30,
).map(lambda events: sorted(events, key=lambda event: event[0]))
FEW = [(0, 0, 99, 1), (40, 127, 0, 0), (99_000, 5, 9, 1)]


def text(events, form="{} {} {} {}\n"):
    return "".join(form.format(*event) for event in events).encode()


@hypothesis.settings(max_examples=60, deadline=None, database=None)
@hypothesis.given(
    EVENTS, st.sampled_from(["{} {} {} {}\n", "{}\t{}  {} {}\r\n", "{}.0 {} {} {}\n"])
)
def test_lines_are_read_back(events, form):
    read = parse_gait(text(events, form))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, events)


def test_the_darker_polarity_may_be_minus_one():
    read = parse_gait(b"1 2 3 -1\n4.0e+00 5 6 1\n")
    np.testing.assert_array_equal(read, [(1, 2, 3, 0), (4, 5, 6, 1)])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "four whole numbers"),
        (b" \n\n", "four whole numbers"),
        (b"1 2 3\n", "four whole numbers"),
        (b"1 2 3 1\n4 5", "four whole numbers"),
        (b"1 2 3 1 4\n5 6 7", "polarity other than"),
        (b"1 2.5 3 1\n", "four whole numbers"),
        (b"1 2 nan 1\n", "four whole numbers"),
        (b"1 two 3 1\n", "four whole numbers"),
        (b"1 2 3 2\n", "polarity other than"),
        (b"-1 2 3 1\n", "negative time"),
        (b"1 128 3 1\n", "outside 128x128"),
    ],
)
def test_a_damaged_file_is_named(content, match):
    with pytest.raises(data.CorruptDataError, match=match) as caught:
        parse_gait(content, name="17.txt")
    assert str(caught.value).startswith("17.txt")


def _write(root, people=("2", "10", "1"), walks=2):
    for split in ("train", "test"):
        for person in people:
            folder = root / "data" / split / person
            folder.mkdir(parents=True)
            for walk in range(walks):
                events = [(t, int(person), walk, p) for t, _, _, p in FEW]
                (folder / f"{walk}.txt").write_bytes(text(events))


def test_the_set_is_found_by_name_and_people_are_in_the_order_of_their_numbers(tmp_path):
    _write(tmp_path / "DVS128-Gait-Day")
    dataset = data.load("dvs128_gait_day", data_dir=tmp_path)
    assert dataset.class_names == ("1", "2", "10") and dataset.input_shape == (128, 128, 2)
    assert len(dataset.train) == len(dataset.test) == 6
    for events, label in (dataset.train[i] for i in range(6)):
        assert set(events[:, 1]) == {int(dataset.class_names[label])}
    with pytest.raises(data.MissingDataError, match="dvs128-gait-night"):
        data.load("dvs128_gait_night", data_dir=tmp_path)


def test_missing_parts_are_named(tmp_path):
    (tmp_path / "dvs128-gait-night").mkdir()
    with pytest.raises(data.MissingDataError, match="no recordings"):
        data.load("dvs128_gait_night", data_dir=tmp_path)
    _write(tmp_path / "dvs128-gait-night")
    alone = tmp_path / "dvs128-gait-night" / "data" / "train" / "7"
    alone.mkdir()
    (alone / "1.txt").write_bytes(text(FEW))
    with pytest.raises(data.CorruptDataError, match="has 7 in one of its splits"):
        data.load("dvs128_gait_night", data_dir=tmp_path)
