from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import face_camera, rendered
from fer_bench.datasets.base import DATASETS, SPLITS, forbid_split
from fer_bench.datasets.face_relief import Canvas, half_width, region_mask
from fer_bench.datasets.face_shape import ACTION_UNITS, shape_of
from fer_bench.datasets.rendered import COUNTS, PROTOTYPES, draw_split, load, person_key, render, render_action_units
from fer_bench.emotions import SEVEN
from fer_bench.infer import load as load_model
from fer_bench.infer import logits

SIX = SEVEN[:6]


@pytest.fixture
def small(monkeypatch):
    """Splits of two persons each."""
    for split in SPLITS:
        monkeypatch.setitem(rendered.COUNTS, split, 14)


@pytest.fixture(scope="module")
def two_persons():
    return draw_split("validation", 14)


def rows_of(mask):
    return np.flatnonzero(mask.any(axis=1))


def test_same_seed_same_bytes():
    """The same emotion, intensity and seed give the same picture and mask, byte for byte."""
    first, second = render("fear", 0.8, 5), render("fear", 0.8, 5)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_split_is_drawn_alike_every_time(two_persons):
    """Drawing a split again gives the same content hash, intensities and masks."""
    again = draw_split("validation", 14)
    assert again.content_hash() == two_persons.content_hash()
    assert np.array_equal(again.intensity, two_persons.intensity)
    assert np.array_equal(again.masks, two_persons.masks)


def test_persons_stay_in_one_split():
    """No person stands in two splits, and each person shows each of the seven emotions exactly once."""
    persons = {split: [person_key(split, i) for i in range(COUNTS[split])] for split in SPLITS}
    assert not set(persons["train"]) & set(persons["validation"])
    assert not set(persons["train"]) & set(persons["test"])
    assert not set(persons["validation"]) & set(persons["test"])
    assert len(set(persons["test"])) * 7 == COUNTS["test"]


def test_counts_are_balanced(small):
    """A loaded split holds as many pictures of every emotion, with distinct ids that name the split."""
    faces = load(None, "test")
    assert faces.counts == dict.fromkeys(SEVEN, 2)
    assert faces.ids[7] == "rendered-test-0007"
    assert len(set(faces.ids)) == 14


def test_official_counts_divide_by_the_emotions():
    """Every split's count is a whole number of persons with seven pictures, and the card states it."""
    assert all(count % 7 == 0 for count in COUNTS.values())
    assert DATASETS["rendered"].card.counts == tuple(COUNTS.items())


def test_face_set_is_complete(two_persons):
    """A split carries a mask per picture and float32 intensities that set every emotion above every neutral face."""
    neutral = two_persons.labels == SEVEN.index("neutral")
    assert two_persons.images.shape == two_persons.masks.shape == (14, 48, 48)
    assert two_persons.masks.dtype == bool
    assert two_persons.intensity.dtype == np.float32
    assert two_persons.intensity[~neutral].min() > two_persons.intensity[neutral].max()
    assert two_persons.masks[~neutral].any(axis=(1, 2)).all()
    assert not two_persons.masks[neutral].any()


def test_no_two_pictures_are_equal(two_persons):
    """All pictures of two splits differ."""
    digests = two_persons.picture_hashes() + draw_split("test", 14).picture_hashes()
    assert len(set(digests)) == 28


def test_loaded_pictures_may_be_written_to(small):
    """Writing into a loaded split does not change what the next load gives."""
    spoilt = load(None, "train")
    spoilt.images[:] = 0
    assert load(None, "train").images.any()


def test_forbidden_and_unknown_splits(small):
    """A forbidden split raises RuntimeError even where it was drawn before, an unknown one ValueError."""
    load(None, "test")
    with forbid_split("test"), pytest.raises(RuntimeError, match="test split"):
        load(None, "test")
    with pytest.raises(ValueError, match="no split"):
        load(None, "holdout")


@pytest.mark.parametrize("emotion", SIX)
def test_difference_grows_with_intensity(emotion):
    """The stronger the expression, the more the picture differs from the same person's resting face."""
    rest = render_action_units({}, 21)[0].astype(float)
    steps = [np.abs(render(emotion, level, 21)[0] - rest).mean() for level in (0.0, 0.3, 0.65, 1.0)]
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert steps[3] > 1.5 * steps[1] > 0


@pytest.mark.parametrize(
    ("unit", "upper"), [(1, True), (4, True), (5, True), (12, False), (15, False), (20, False), (26, False)]
)
def test_mask_lies_where_the_unit_acts(unit, upper):
    """Units of brows and lids mark the upper half of the face, units of the mouth the part below the nose."""
    for seed in (3, 11):
        rows = rows_of(render_action_units({unit: 1.0}, seed, 96)[1])
        assert (rows.max() < 55) if upper else (rows.min() > 42)


@pytest.mark.parametrize("unit", ACTION_UNITS)
def test_mask_covers_what_moves_and_little_else(unit):
    """Over half of the change between a resting face and one with a single unit lies inside that unit's mask, which

    covers less than 0.3 of the picture, and less than 0.2 for each but the nose wrinkler, the change being at least 2.5
    times as dense there as over the whole picture: a mask of everything would be neither.
    """
    changed = inside = area = 0.0
    seeds = (3, 11, 12, 14, 17)
    for seed in seeds:
        moved, mask = render_action_units({unit: 1.0}, seed)
        difference = np.abs(moved - render_action_units({}, seed)[0].astype(float))
        changed, inside = changed + difference.sum(), inside + difference[mask].sum()
        area += mask.mean() / len(seeds)
    assert inside > 0.5 * changed
    assert area < (0.3 if unit == 9 else 0.2)
    assert inside / changed > 2.5 * area


@pytest.mark.parametrize("emotion", SIX)
def test_masks_of_whole_expressions_stay_tight(emotion):
    """The prototypes' masks hold two thirds of what changes, on at most 0.45 of the picture."""
    changed = inside = area = 0.0
    for number, variant in enumerate(PROTOTYPES[emotion]):
        moved, mask = render_action_units(variant, 30 + number)
        difference = np.abs(moved - render_action_units({}, 30 + number)[0].astype(float))
        changed, inside = changed + difference.sum(), inside + difference[mask].sum()
        area += mask.mean() / len(PROTOTYPES[emotion])
    assert inside > 2 / 3 * changed
    assert area < 0.45


@pytest.mark.parametrize("unit", [26, 27])
def test_mask_of_a_dropping_jaw_holds_its_outline(unit):
    """The sides of the jaw and the place of the resting chin are marked, the cheeks between and the eyes are not."""
    person = replace(rendered._draw_person(rendered._rng(3, 1)), asymmetry=0.0)
    canvas = Canvas(48)
    rest, shape = shape_of(person, {}), shape_of(person, {unit: 1.0})
    mask = region_mask(person, shape, canvas)

    def marked(x, y):
        return bool(mask[np.abs(canvas.ys[:, 0] - y).argmin(), np.abs(canvas.xs[0] - x).argmin()])

    for y in (person.mouth_y, person.mouth_y + 0.2, rest.chin - 0.05):
        old, new = (float(half_width(person, one, np.array(y))) for one in (rest, shape))
        for x in (old - 0.06, (old + new) / 2 - 0.03):
            assert marked(x, y)
            assert marked(-x, y)
        assert not marked(new + 0.05, y)
    assert marked(0.0, rest.chin)
    assert marked(0.0, (rest.chin + shape.chin) / 2)
    assert not marked(0.5, person.mouth_y - 0.2)
    assert not marked(person.eye_x, 0.0)


def test_the_pictures_do_not_depend_on_the_masks(monkeypatch):
    """Whatever is marked, a split's content hash, by which results name their data, stays the same."""
    before = draw_split("test", 7)
    monkeypatch.setattr(face_camera, "region_mask", lambda _person, _shape, canvas: np.zeros((canvas.n, canvas.n)))
    after = draw_split("test", 7)
    assert before.masks.any()
    assert not after.masks.any()
    assert after.content_hash() == before.content_hash()


def test_mask_of_a_resting_face_is_empty():
    """Units at rest, or below 0.05, mark nothing; neutral faces mark nothing either."""
    assert not render_action_units({}, 2)[1].any()
    assert not render_action_units({12: 0.02}, 2)[1].any()
    assert not render("neutral", 1.0, 2)[1].any()


@pytest.mark.parametrize("seed", [8, 10, 11])
def test_mask_holds_no_background(seed):
    """Changing the background leaves the pixels under the mask alone."""
    person, scene = rendered._draw_person(rendered._rng(seed, 1)), rendered._draw_scene(rendered._rng(seed, 2))
    shape = shape_of(person, PROTOTYPES["surprise"][0])
    shots = [
        face_camera.photograph(
            person,
            shape,
            replace(scene, background=level, clutter=0.0, blur=0.0, quality=0.0),
            rendered._rng(seed, 3),
            48,
        )
        for level in (0.05, 0.95)
    ]
    difference = np.abs(shots[0][0] - shots[1][0].astype(float))
    assert np.array_equal(shots[0][1], shots[1][1])
    assert difference[shots[0][1]].mean() < 1
    assert difference.max() > 100


def test_different_seeds_give_different_persons():
    """Other seeds draw other persons and scenes, and pictures that differ in most pixels."""
    pictures = [render("neutral", 0.0, seed)[0].astype(float) for seed in range(4)]
    people = {rendered._draw_person(rendered._rng(seed, 1)) for seed in range(20)}
    assert len(people) == 20
    for i in range(4):
        for j in range(i):
            assert (np.abs(pictures[i] - pictures[j]) > 4).mean() > 0.5


@pytest.mark.parametrize("seed", [1, 4])
def test_size_changes_only_the_resolution(seed):
    """A larger picture shows the same face: shrunk to 48 pixels it correlates with the small one."""
    small, small_mask = render("anger", 1.0, seed)
    large, large_mask = render("anger", 1.0, seed, size=192)
    assert large.shape == large_mask.shape == (192, 192)
    shrunk = np.asarray(Image.fromarray(large).resize((48, 48), Image.Resampling.BOX), dtype=float)
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.97
    assert (large_mask[2::4, 2::4] == small_mask).mean() > 0.97


def test_spellings_are_accepted():
    """An emotion may be named in any of its usual spellings."""
    assert np.array_equal(render("Happy", 0.7, 1)[0], render("happiness", 0.7, 1)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: render("boredom", 0.5, 0), "unknown emotion"),
        (lambda: render("contempt", 0.5, 0), "cannot be rendered"),
        (lambda: render("anger", 1.2, 0), "intensity"),
        (lambda: render("anger", -0.1, 0), "intensity"),
        (lambda: render("anger", float("nan"), 0), "intensity"),
        (lambda: render("anger", 1.0, 0, size=8), "size"),
        (lambda: render_action_units({12: 1.5}, 0), "action unit 12"),
        (lambda: render_action_units({3: 0.5}, 0), "action unit 3"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    """Unknown emotions and units, and levels or sizes out of range, raise ValueError that names them."""
    with pytest.raises(ValueError, match=message):
        call()


def test_every_prototype_uses_known_units():
    """Each emotion but neutral has several prototypes, all of units that can be drawn."""
    assert tuple(PROTOTYPES) == SEVEN
    for emotion in SIX:
        assert len(PROTOTYPES[emotion]) >= 3
        for variant in PROTOTYPES[emotion]:
            rendered.check_action_units(variant)


@pytest.fixture(scope="module")
def at_full_intensity():
    """uint8 (7, 100, 48, 48): a hundred faces of each emotion."""
    seeds = np.arange(970_000, 970_700).reshape(7, 100)
    return np.array([[render(name, 1.0, int(seed))[0] for seed in row] for name, row in zip(SEVEN, seeds, strict=True)])


@pytest.mark.parametrize("method", ["reference_tiny", "small_cnn"])
def test_networks_that_know_photographs_only_read_the_faces(method, at_full_intensity):
    """At full intensity at least 65 % are read, and over 40 % of each emotion: the drawing shows what it says."""
    model = load_model(method)
    right = {
        emotion: float((logits(model, faces, 100).argmax(1) == model.emotions.index(emotion)).mean())
        for emotion, faces in zip(SEVEN, at_full_intensity, strict=True)
    }
    assert np.mean(list(right.values())) >= 0.65
    assert min(right.values()) > 0.40, right
