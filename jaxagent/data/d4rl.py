"""D4RL files: flat arrays of all episodes one after another, as shards of our store.

Source: Fu et al. 2020, arXiv 2004.07219, and `qlearning_dataset` of the authors' code: HDF5 with
`observations [N, n]`, `actions [N, m]` or `[N]`, `rewards [N]`, `terminals [N]`, and in newer
files `timeouts [N]` and `next_observations [N, n]`. `infos` and `metadata` are left out. The same arrays
as npz are read alike.

Differs from `qlearning_dataset`: a step that terminated is always kept, the file's last one and one
that also timed out included; steps are counted from 0 after a termination too.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxagent.data.foreign_arrays import (
    FLAGS,
    REALS,
    SHARD_STEPS,
    Where,
    actions,
    array,
    array_of_npz,
    check_rows,
    column,
    digest,
    flags,
    open_hdf5,
    open_npz,
    reals,
    shards,
)
from jaxagent.data.store import FIELDS, Shard, StoreError
from jaxagent.types import Trajectory

REQUIRED = ("observations", "actions", "rewards", "terminals")
CLOSE = 1e-4  # absolute and relative: a row and the one before it agree on the observation between


class Arrays(NamedTuple):
    """Arrays of the file as they are; None where it has no such array."""

    observations: np.ndarray  # [N, n]
    actions: np.ndarray  # [N, m] or [N]
    rewards: np.ndarray  # [N]
    terminals: np.ndarray  # [N]
    timeouts: np.ndarray | None  # [N]
    next_observations: np.ndarray | None  # [N, n]


def read(
    path: Path | str,
    *,
    max_episode_steps: int | None = None,
    cut_at_jumps: bool = False,
    shard_steps: int = SHARD_STEPS,
) -> list[Shard]:
    """Read a file into shards `[T, 1, ...]` of whole episodes; see `minari.read` for their form.

    A file without `timeouts` needs `max_episode_steps`, the limit under which it was recorded; with
    `timeouts` the limit is only checked. What follows the last flag is a truncated episode.

    `final_obs` is `next_observations` where the file has them. Where it has not, the observation
    after an episode's last step is unknown, for the next row is another episode's:

    - the last step of an episode that did not terminate is dropped, as `qlearning_dataset` does;
      the step before it is then the truncated one, and its `final_obs` is known;
    - a step that terminated is kept, for nothing is bootstrapped from it; its `final_obs` repeats
      its own `obs`. Do not fit dynamics to it.

    Within an episode `next_observations` must agree with the next row. Where they do not, an end is
    not marked (as where two files were joined): that is refused, or with `cut_at_jumps` an episode
    is truncated there. Raises `StoreError` naming file, episode and row, and `MissingExtra` without
    h5py.
    """
    path = Path(path)
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ValueError(f"d4rl: got max_episode_steps {max_episode_steps}, expected 1 or more.")
    arrays = _arrays(path)
    terminated, truncated = _ends(path, arrays, max_episode_steps)
    where = _where(path, terminated | truncated)
    obs = reals(arrays.observations, where, "observations")
    next_obs = None
    if arrays.next_observations is not None:
        next_obs = reals(arrays.next_observations, where, "next_observations")
        truncated = truncated | _jumps(where, obs, next_obs, terminated | truncated, is_cut=cut_at_jumps)
    flat = Trajectory(
        obs=obs,
        action=actions(arrays.actions, where, "actions"),
        reward=reals(arrays.rewards, where, "rewards"),
        terminated=terminated,
        truncated=truncated,
        final_obs=obs if next_obs is None else next_obs,
    )
    _check_lengths(where, terminated | truncated, max_episode_steps)
    known = flat if next_obs is not None else _without_unknown(path, flat)
    meta = {
        "source": "d4rl",
        "dataset": path.stem,
        "sha256": digest(path),
        "num_dropped": len(flat.reward) - len(known.reward),  # steps of the whole file
    }
    return shards(known, meta, shard_steps)


def _arrays(path: Path) -> Arrays:
    is_npz = path.suffix == ".npz"
    with open_npz(path) if is_npz else open_hdf5(path) as file:
        names = set(file)
        _check_members(path, names)
        read = partial(array_of_npz, path, file) if is_npz else partial(array, file)

        def scalars(name: str, kinds: str) -> np.ndarray:
            return column(read(name, kinds, (1, 2)), str(path), name)

        result = Arrays(
            observations=read("observations", REALS, (2,)),
            actions=read("actions", REALS, (1, 2)),
            rewards=scalars("rewards", REALS),
            terminals=scalars("terminals", FLAGS),
            timeouts=scalars("timeouts", FLAGS) if "timeouts" in names else None,
            next_observations=read("next_observations", REALS, (2,))
            if "next_observations" in names
            else None,
        )
    for name, values in result._asdict().items():
        if values is not None:
            check_rows(values, len(result.rewards), str(path), name, "as many as rewards has")
    if result.next_observations is not None:
        a, b = result.next_observations.shape, result.observations.shape
        if a != b:
            raise StoreError(
                f"{path}: next_observations has shape {list(a)}, expected observations' {list(b)}."
            )
    return result


def _check_members(path: Path, names: set[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        got = ", ".join(sorted(names)[:8]) or "nothing"
        raise StoreError(
            f"{path}: got {got}, expected the arrays {', '.join(REQUIRED)}, of which "
            f"{', '.join(missing)} are missing; groups episode_0, ... are Minari's: "
            "jaxagent.data.minari."
        )


def _ends(path: Path, arrays: Arrays, max_steps: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each step terminated and was truncated, bool `[N]`; the last one did either."""

    def where(row: int) -> str:
        return str(path)  # the episodes are not known yet

    terminated = flags(arrays.terminals, where, "terminals")
    if arrays.timeouts is not None:
        truncated = flags(arrays.timeouts, where, "timeouts")
    elif max_steps is not None:
        row = np.arange(len(terminated))
        is_first = np.append(True, terminated[:-1])
        since = row - np.maximum.accumulate(np.where(is_first, row, 0))  # since a termination
        truncated = since % max_steps == max_steps - 1
    else:
        raise StoreError(
            f"{path}: got no timeouts, expected them or max_episode_steps; pass the limit under "
            "which the file was recorded (1000 for MuJoCo's) to `jaxagent.data.load`, and keep what it "
            "returns (`jaxagent.data.store.write`)."
        )
    truncated[-1] |= not terminated[-1]
    return terminated, truncated


def _where(path: Path, ends: np.ndarray) -> Where:
    rows = np.flatnonzero(ends)
    return lambda row: f"{path}: episode {np.searchsorted(rows, row)}"


def _check_lengths(where: Where, ends: np.ndarray, max_steps: int | None) -> None:
    rows = np.flatnonzero(ends)
    lengths = np.diff(rows, prepend=-1)
    if max_steps is not None and lengths.max() > max_steps:
        i = int(np.argmax(lengths > max_steps))
        raise StoreError(
            f"{where(rows[i])}: got {lengths[i]} steps up to row {rows[i]}, expected at most "
            f"max_episode_steps = {max_steps}; an end is not marked in timeouts, or the limit was "
            "another."
        )


def _jumps(
    where: Where, obs: np.ndarray, next_obs: np.ndarray, ends: np.ndarray, *, is_cut: bool
) -> np.ndarray:
    """Steps whose next row is another episode's although no flag says so, bool `[N]`."""
    agrees = np.all(np.isclose(next_obs[:-1], obs[1:], rtol=CLOSE, atol=CLOSE), axis=-1)
    borders = ends[:-1]
    if borders.any() and agrees[borders].all():
        row = int(np.argmax(borders))
        raise StoreError(
            f"{where(row)}: next_observations[{row}] is the first observation of the next episode, "
            "as at every other end, expected the last one of its own; they were made by a shift. "
            "Remove next_observations from the file."
        )
    jumps = np.append(~agrees & ~borders, False)
    if jumps.any() and not is_cut:
        row = int(np.argmax(jumps))
        raise StoreError(
            f"{where(row)}: next_observations[{row}] is not observations[{row + 1}], expected them "
            f"to agree within an episode; at {jumps.sum()} rows an end is not marked or the arrays "
            "are misaligned. Mark them in timeouts, or pass cut_at_jumps=True to truncate there."
        )
    return jumps


def _without_unknown(path: Path, flat: Trajectory) -> Trajectory:
    """Drop the steps whose next observation the file does not have, and cut before them."""
    ends = flat.terminated | flat.truncated
    following = np.concatenate([flat.obs[1:], flat.obs[-1:]])
    is_known = flat.terminated | ~flat.truncated
    is_before_unknown = np.append(~is_known[1:], False) & ~ends
    result = flat._replace(
        truncated=flat.truncated | is_before_unknown, final_obs=np.where(ends[:, None], flat.obs, following)
    )
    if not is_known.any():
        raise StoreError(
            f"{path}: every episode is one step that did not terminate, expected one whose next "
            "observation is known; nothing is left."
        )
    return result._replace(**{name: getattr(result, name)[is_known] for name in FIELDS})
