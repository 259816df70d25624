"""Nested spaces as flat lists of components: names, round trips, gymnasium's own flattening."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten as flatten_one_hot
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.adapters.gymnasium import layout_of
from envs.common.spaces import LARGEST_CARDINALITY, flatten, observe, shape_of, spec_of, unflatten
from envs.types import blank_action, contains, is_one_category

FEW = settings(max_examples=25, deadline=None, derandomize=True)

NESTED = spaces.Dict(
    {
        "position": spaces.Box(-1.0, 1.0, (2,)),
        "goal": spaces.Dict(colour=spaces.Discrete(3, start=-1), seen=spaces.MultiBinary(2)),
        "hands": spaces.Tuple([spaces.Discrete(4), spaces.MultiDiscrete([[2, 5]], start=[[0, 7]])]),
    }
)
VALUE = {
    "position": np.array([0.5, -0.25]),
    "goal": {"colour": 1, "seen": np.array([0, 1], np.int8)},
    "hands": (3, np.array([[1, 9]])),
}
FLAT = {
    "obs.goal.colour": 2,  # gymnasium sorts the keys of a dict; categories count from 0
    "obs.goal.seen[0]": 0,
    "obs.goal.seen[1]": 1,
    "obs.hands.0": 3,
    "obs.hands.1[0]": 1,
    "obs.hands.1[1]": 2,
    "obs.position[0]": 0.5,
    "obs.position[1]": -0.25,
}


def assert_nested_equal(ours, theirs):
    """Equal nesting, values and dtypes."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        theirs = theirs.values()
        ours = ours.values()
    elif not isinstance(theirs, tuple):
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(ours, theirs)
        return
    for x, y in zip(ours, theirs, strict=True):
        assert_nested_equal(x, y)


def test_names_follow_the_path_in_the_order_of_the_space():
    layout = layout_of(NESTED, "obs")
    spec = spec_of(layout, "obs")
    assert [c.name for c in spec] == list(FLAT)
    assert [c.cardinality for c in spec] == [3, 2, 2, 4, 2, 5, 0, 0]
    assert (spec[-1].kind, spec[-1].low, spec[-1].high) == ("real", -1.0, 1.0)
    np.testing.assert_array_equal(observe(layout, VALUE), np.array(list(FLAT.values()), np.float32))
    as_given = spaces.Dict(OrderedDict(b=spaces.Discrete(2), a=spaces.Discrete(2)))
    assert [c.name for c in spec_of(layout_of(as_given, "obs"), "obs")] == ["obs.b", "obs.a"]


@pytest.mark.parametrize(
    ("space", "names", "shape"),
    [
        (spaces.Box(0, 1, (2,)), ["obs[0]", "obs[1]"], (2,)),
        (spaces.Box(0, 255, (1, 2, 1), np.uint8), ["obs[0]", "obs[1]"], (1, 2, 1)),
        (spaces.Box(0, 1, ()), ["obs[0]"], (1,)),
        (spaces.Discrete(3), ["obs"], (1,)),
        (spaces.MultiDiscrete([[2], [3]]), ["obs[0]", "obs[1]"], (2,)),
        (spaces.Dict(eye=spaces.Box(0, 255, (1, 2, 1), np.uint8)), ["obs.eye[0]", "obs.eye[1]"], (2,)),
    ],
)
def test_a_lone_array_of_reals_keeps_its_axes_and_all_else_is_a_vector(space, names, shape):
    layout = layout_of(space, "obs")
    assert [c.name for c in spec_of(layout, "obs")] == names
    assert shape_of(layout) == shape
    seen = observe(layout, space.sample())
    assert (seen.shape, seen.dtype) == (shape, np.float32)


# --- round trips over random spaces -------------------------------------------------------------------

SMALL = st.integers(1, 4)
LEAVES = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), SMALL, st.integers(-3, 3)),
    st.builds(lambda n, start: spaces.MultiDiscrete([[n, 2]], start=[[start, 0]]), SMALL, st.integers(-3, 3)),
    st.builds(lambda shape: spaces.Box(-2, 2, shape), st.lists(SMALL, max_size=2).map(tuple)),
    st.builds(lambda n: spaces.Box(0, 9, (n,), np.uint8), SMALL),
)
SPACES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.dictionaries(st.sampled_from("zax"), children, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(children, min_size=1, max_size=2).map(spaces.Tuple),
    ),
    max_leaves=6,
)


def one_hot(spec, flat):
    """Our scalars as gymnasium flattens them."""
    columns = [
        np.eye(c.cardinality)[int(x)] if c.cardinality else [x] for c, x in zip(spec, flat, strict=True)
    ]
    return np.concatenate(columns)


@FEW
@given(SPACES, st.integers(0, 2**16))
def test_flattening_is_gymnasium_s_with_numbers_for_one_hots(space, seed):
    """Every sample comes back, and equals `gymnasium.spaces.flatten` once categories are one-hot."""
    space.seed(seed)
    layout = layout_of(space, "x")
    spec = spec_of(layout, "x")
    value = space.sample()
    flat = flatten(layout, value)
    assert flat.dtype == np.float32
    assert bool(contains(spec, flat))
    np.testing.assert_allclose(one_hot(spec, flat), flatten_one_hot(space, value))
    action = flat[0].astype(np.int32) if is_one_category(spec) else flat.astype(blank_action(spec).dtype)
    back = unflatten(layout, action)
    assert back in space
    assert_nested_equal(back, value)


def test_jax_arrays_flatten_as_numpy_s_under_jit_and_vmap():
    """Strict dtypes and ranks hold: starts are subtracted in the source's own whole numbers."""
    space = spaces.Dict(
        a=spaces.Discrete(3, start=5, dtype=np.int32),
        b=spaces.Tuple([spaces.Box(-1, 1, (2, 1)), spaces.MultiDiscrete([2, 3], np.int32, start=[1, 2])]),
        c=spaces.Box(0, 255, (2,), np.uint8),
    )
    layout = layout_of(space, "x")
    space.seed(3)
    values = [space.sample() for _ in range(4)]
    batch = jax.tree.map(lambda *x: np.stack(x), *values)
    on_host = flatten(layout, batch)
    on_device = jax.jit(jax.vmap(partial(flatten, layout)))(batch)
    assert isinstance(on_host, np.ndarray)
    assert isinstance(on_device, jax.Array)
    assert (on_device.dtype, on_device.weak_type) == (jnp.float32, False)
    np.testing.assert_array_equal(on_host, np.stack([flatten(layout, x) for x in values]))
    np.testing.assert_array_equal(on_device, on_host)
    assert_nested_equal(jax.jit(partial(unflatten, layout))(on_device), batch)
    assert_nested_equal(unflatten(layout, on_host), batch)


def test_what_is_whole_at_the_source_is_rounded():
    layout = layout_of(spaces.Dict(a=spaces.Discrete(5, start=1), b=spaces.Box(-1, 1, (1,))), "action")
    nested = unflatten(layout, np.array([2.9999998, 0.5], np.float32))
    assert (nested["a"], nested["a"].dtype, nested["b"].tolist()) == (4, np.int64, [0.5])


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Dict(a=spaces.Text(3)), r"obs\.a: got space Text.*expected Box, Discrete"),
        (spaces.Tuple([spaces.Sequence(spaces.Discrete(2))]), r"obs\.0: got space Sequence.*expected Box"),
        (spaces.Graph(spaces.Discrete(2), None), r"obs: got space Graph.*expected Box"),
        (spaces.OneOf([spaces.Discrete(2)]), r"obs: got space OneOf.*expected Box"),
        (spaces.Dict(), "obs: got a space without a number"),
        (
            spaces.Dict({"a": spaces.Dict(b=spaces.Discrete(2)), "a.b": spaces.Discrete(2)}),
            r"obs: got two components named 'obs\.a\.b', expected names that differ",
        ),
        (spaces.Discrete(LARGEST_CARDINALITY + 1), "obs: got 16777217 categories, expected at most"),
    ],
    ids=["Text", "Sequence", "Graph", "OneOf", "empty", "same names", "too many"],
)
def test_spaces_without_components_are_refused_by_name(space, said):
    with pytest.raises(ValueError, match=said):
        spec_of(layout_of(space, "obs"), "obs")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": 1}, r"got a dict without the entry 'b', expected the entries \['a', 'b'\]"),
        (np.ones(2), "got a ndarray without the entry 'a'"),
        ({"a": 1, "b": (np.ones(2),)}, "got a tuple without the entry 1"),
        (
            {"a": 1, "b": (np.ones(3), 0)},
            r"x\.b\.0: got an array of shape \(3,\), expected one that ends in \(2,\)",
        ),
    ],
)
def test_values_unlike_their_space_are_named(value, said):
    space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(2)]))
    with pytest.raises(ValueError, match=said):
        flatten(layout_of(space, "x"), value)
