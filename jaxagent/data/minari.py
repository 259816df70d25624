"""Minari datasets: `main_data.hdf5` and the `metadata.json` beside it, as shards of our store.

Source: Farama's Minari 0.5, https://minari.farama.org/content/dataset_standards: a group `episode_<i>`
per episode with `observations [T + 1, n]`, `actions [T, m]` or `[T]`, and `rewards`, `terminations`,
`truncations`, each `[T]`. Observations of a Dict space are groups of arrays, laid side by side in the
order of the space, or of their names where the file states none. In files of before 0.5 the metadata are
attributes of the file's root; they are read as well. `infos` and other groups are left out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxagent.data.foreign_arrays import (
    FLAGS,
    REALS,
    SHARD_STEPS,
    actions,
    array,
    check_rows,
    column,
    digest,
    flags,
    member,
    open_hdf5,
    place_of,
    reals,
    shards,
)
from jaxagent.data.place import MAIN_FILE
from jaxagent.data.store import FIELDS, Shard, StoreError
from jaxagent.types import Trajectory

METADATA = "metadata.json"


class Spaces(NamedTuple):
    """Spaces as Minari writes them, e.g. `{"type": "Box", "shape": [3]}`; None: not stated."""

    observation: dict[str, Any] | None
    action: dict[str, Any] | None


def read(path: Path | str, *, shard_steps: int = SHARD_STEPS) -> list[Shard]:
    """Read a dataset: its folder, the folder `data` in it, or the file `main_data.hdf5`.

    Shards are `[T, 1, ...]`, whole episodes one after another, at most `shard_steps` steps unless
    one episode is longer. Observations and rewards are float32, actions float32 `[T, 1, m]` or
    int32 `[T, 1]`; `final_obs` is the observation that the file has after the step, of the same
    episode always. Raises `StoreError` naming file, episode and offset, and `MissingExtra` without
    h5py.
    """
    path = _main_file(Path(path))
    with open_hdf5(path) as file:
        about = _metadata(path, file)
        spaces = Spaces(*(_described(path, about, f"{s}_space") for s in Spaces._fields))
        _check_spaces(path, spaces)
        names = _episode_names(path, file)
        episodes = [_episode(member(file, name), i, spaces) for i, name in enumerate(names)]
        _check_totals(path, about, episodes)
        _check_alike(path, episodes)
        env = (_described(path, about, "env_spec") or {}).get("id")
        meta = {"source": "minari", "dataset": about.get("dataset_id"), "env": env}
    flat = {name: np.concatenate([getattr(e, name) for e in episodes]) for name in FIELDS}
    return shards(Trajectory(**flat), {**meta, "sha256": digest(path)}, shard_steps)


def _main_file(path: Path) -> Path:
    for candidate in (path, path / MAIN_FILE, path / "data" / MAIN_FILE):
        if candidate.is_file():
            return candidate
    raise StoreError(
        f"{path}: got no {MAIN_FILE}, expected it there or in its folder data; only Minari's "
        "data_format 'hdf5' is supported."
    )


def _metadata(path: Path, file: Any) -> Mapping[str, Any]:
    beside = path.with_name(METADATA)
    if not beside.exists():
        return file.attrs
    try:
        content = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{beside}: not readable JSON ({error}); get it again.") from error
    if not isinstance(content, dict):
        raise StoreError(f"{beside}: got a {type(content).__name__}, expected an object.")
    return content


def _described(path: Path, about: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What the metadata hold as JSON in a string; None where they do not state it."""
    text = about.get(name)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: {name} of the metadata is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: {name} of the metadata is {text!r}, expected an object.")
    return content


def _check_spaces(path: Path, spaces: Spaces) -> None:
    if spaces.observation is not None and not _is_flat(spaces.observation):
        raise StoreError(
            f"{path}: observation_space is {_brief(spaces.observation)}, supported is Box of "
            "shape [n], and Dict of such; flatten the observations and write the dataset anew."
        )
    action = spaces.action
    if action is None or _is_vector(action) or _is_category(action):
        return
    raise StoreError(
        f"{path}: action_space is {_brief(action)}, supported are Box of shape [m] and Discrete "
        "with start 0; map the actions and write the dataset anew."
    )


def _is_vector(space: dict[str, Any]) -> bool:
    return space.get("type") == "Box" and len(space.get("shape") or ()) == 1


def _is_flat(space: dict[str, Any]) -> bool:
    """Whether it is a vector, or a Dict of such to any depth."""
    parts = _parts(space).values()
    return _is_vector(space) or (space.get("type") == "Dict" and bool(parts) and all(map(_is_flat, parts)))


def _parts(space: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return space.get("subspaces") or {}


def _width(space: dict[str, Any]) -> int:
    return space["shape"][0] if _is_vector(space) else sum(map(_width, _parts(space).values()))


def _is_category(space: dict[str, Any]) -> bool:
    return space.get("type") == "Discrete" and "n" in space and space.get("start", 0) == 0


def _brief(space: dict[str, Any]) -> str:
    known = {k: space[k] for k in ("shape", "n", "start") if k in space}
    return f"{space.get('type')} {known or ''}".strip()


def _episode_names(path: Path, file: Any) -> list[str]:
    """Names in the order of their numbers; HDF5 sorts episode_10 before episode_2."""
    names = [f"episode_{i}" for i in range(len(file))]
    strange = sorted(set(file) - set(names))
    if not names:
        raise StoreError(f"{path}: the file is empty, expected groups episode_0, episode_1, ...")
    if strange:
        raise StoreError(
            f"{path}: got {', '.join(strange[:5])} among {len(file)} members, expected episode_0 "
            f"to {names[-1]} without a gap; an episode is missing, or this is no Minari file (flat "
            "arrays: jaxagent.data.d4rl)."
        )
    return names


def _episode(group: Any, index: int, spaces: Spaces) -> Trajectory:
    """One episode `[T, ...]`, checked."""
    place = place_of(group)
    if not hasattr(group, "keys"):
        raise StoreError(f"{place}: got an array, expected a group of arrays; no Minari file.")

    def where(row: int) -> str:
        return place

    def scalars(name: str, kinds: str) -> np.ndarray:
        return column(array(group, name, kinds, (1, 2)), place, name)

    observations = _observations(group, "observations", spaces.observation)
    action = array(group, "actions", REALS, (1, 2))
    reward = scalars("rewards", REALS)
    ends = {name: scalars(name, FLAGS) for name in ("terminations", "truncations")}
    num_steps = len(reward)
    check_rows(observations, num_steps + 1, place, "observations", "one more than rewards has")
    for name, values in {"actions": action, **ends}.items():
        check_rows(values, num_steps, place, name, "as many as rewards has")
    _check_attributes(group, place, index, num_steps)
    ends = {name: flags(values, where, name) for name, values in ends.items()}
    _check_bounds(place, ends)
    observations = reals(observations, where, "observations")
    action = actions(action, where, "actions")
    _check_fit(place, observations, action, spaces)
    return Trajectory(
        obs=observations[:-1],
        action=action,
        reward=reals(reward, where, "rewards"),
        terminated=ends["terminations"],
        truncated=ends["truncations"],
        final_obs=observations[1:],
    )


def _observations(group: Any, name: str, space: dict[str, Any] | None) -> np.ndarray:
    """Observations `[T + 1, n]`; those of a Dict, in float64, side by side."""
    item = member(group, name)
    if not hasattr(item, "keys"):
        return array(group, name, REALS, (2,))
    stated = list(_parts(space)) if space is not None else sorted(item)
    if set(stated) != set(item):
        raise StoreError(
            f"{place_of(group)}: {name} has {sorted(item)}, expected observation_space's {sorted(stated)}; "
            "the metadata are of other data."
        )
    parts = [_observations(item, key, _parts(space)[key] if space is not None else None) for key in stated]
    for key, part in zip(stated, parts, strict=True):
        check_rows(
            part, len(parts[0]), place_of(group), f"{name}/{key}", f"as many as {name}/{stated[0]} has"
        )
    return np.concatenate(parts, axis=1)


def _check_attributes(group: Any, place: str, index: int, num_steps: int) -> None:
    stated = _count(place, group.attrs, "total_steps")
    if stated != num_steps:
        raise StoreError(
            f"{place}: total_steps is {stated}, expected {num_steps}, the rows of rewards; the "
            "episode was written in part, get it again."
        )
    if "id" in group.attrs and _count(place, group.attrs, "id") != index:
        raise StoreError(
            f"{place}: id is {group.attrs['id']}, expected {index} of its name; the episodes were mixed up."
        )


def _check_bounds(place: str, ends: dict[str, np.ndarray]) -> None:
    for name, values in ends.items():
        early = np.flatnonzero(values[:-1])
        if early.size:
            raise StoreError(
                f"{place}: {name}[{early[0]}] is True, expected only the last of {len(values)} "
                "steps to end the episode; split it there."
            )
    if not any(values[-1] for values in ends.values()):
        last = len(ends["terminations"]) - 1
        raise StoreError(
            f"{place}: terminations[{last}] and truncations[{last}] are False, expected one of "
            "them True at the end; the episode was recorded in part: mark it truncated or drop it."
        )


def _check_fit(place: str, observations: np.ndarray, action: np.ndarray, spaces: Spaces) -> None:
    """Refuse arrays that are not of the stated spaces."""
    if spaces.observation is not None and observations.shape[1] != _width(spaces.observation):
        raise StoreError(
            f"{place}: observations has rows of shape {list(observations.shape[1:])}, expected "
            f"observation_space's [{_width(spaces.observation)}]; the metadata are of other data."
        )
    if spaces.action is None:
        return
    shape = spaces.action.get("shape", []) if _is_vector(spaces.action) else []
    if list(action.shape[1:]) != shape:
        raise StoreError(
            f"{place}: actions has {action.dtype} rows of shape {list(action.shape[1:])}, expected "
            f"action_space's {_brief(spaces.action)}; the metadata are of other data."
        )
    if _is_category(spaces.action) and action.max() >= spaces.action["n"]:
        row = int(np.argmax(action >= spaces.action["n"]))
        raise StoreError(
            f"{place}: actions[{row}] is {action[row]}, expected less than {spaces.action['n']} "
            "of action_space; the metadata are of other data."
        )


def _check_totals(path: Path, about: Mapping[str, Any], episodes: list[Trajectory]) -> None:
    total = {"episodes": len(episodes), "steps": sum(len(e.reward) for e in episodes)}
    for name, got in total.items():
        stated = _count(str(path), about, f"total_{name}")
        if stated != got:
            raise StoreError(
                f"{path}: got {got} {name}, expected {stated}, total_{name} of the metadata; the "
                "file is incomplete, get it again."
            )


def _check_alike(path: Path, episodes: list[Trajectory]) -> None:
    first = episodes[0]
    for i, e in enumerate(episodes):
        for got, expected, name in ((e.obs, first.obs, "observations"), (e.action, first.action, "actions")):
            if got.shape[1:] != expected.shape[1:] or got.dtype != expected.dtype:
                raise StoreError(
                    f"{path}: episode_{i}: {name} has {got.dtype} rows of shape "
                    f"{list(got.shape[1:])}, expected episode_0's {expected.dtype} of "
                    f"{list(expected.shape[1:])}; split the dataset."
                )


def _count(place: str, attributes: Mapping[str, Any], name: str) -> int:
    value = attributes.get(name)
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise StoreError(
            f"{place}: {name} is {value!r}, expected an integer that Minari writes there; the "
            f"metadata ({METADATA} or attributes) are missing or of another schema."
        )
    return int(value)
