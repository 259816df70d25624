"""The single list of environments: static tables, so listing imports neither simulator nor JAX."""

import functools
import importlib
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from envs.common.names import MissingExtra, UnknownName, check_name


class Family(NamedTuple):
    """Environments of one source."""

    module: str  # provides make(name, **overrides) -> env, params
    names: tuple[str, ...]
    extra: str = ""  # of pyproject.toml, where the source is optional
    packages: tuple[str, ...] = ()  # what the extra brings, as imported


FAMILIES = {
    "gymnax": Family(
        module="envs.adapters.gymnax",
        # MNISTBandit-bsuite is left out: it downloads its data.
        names=(
            "CartPole-v1",
            "Pendulum-v1",
            "Acrobot-v1",
            "MountainCar-v0",
            "MountainCarContinuous-v0",
            "Asterix-MinAtar",
            "Breakout-MinAtar",
            "Freeway-MinAtar",
            "Seaquest-MinAtar",
            "SpaceInvaders-MinAtar",
            "Catch-bsuite",
            "DeepSea-bsuite",
            "MemoryChain-bsuite",
            "UmbrellaChain-bsuite",
            "DiscountingChain-bsuite",
            "SimpleBandit-bsuite",
            "FourRooms-misc",
            "MetaMaze-misc",
            "PointRobot-misc",
            "BernoulliBandit-misc",
            "GaussianBandit-misc",
            "Reacher-misc",
            "Swimmer-misc",
            "Pong-misc",
            "FrozenLake-misc",
        ),
    ),
    "classic": Family(
        module="envs.classic",
        names=("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    ),
    "minatar": Family(
        module="envs.minatar", names=("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
    ),
    "memory": Family(
        module="envs.memory",
        names=(
            "RepeatFirst",
            "RepeatPrevious",
            "CountRecall",
            "Autoencode",
            "TMaze",
            "PositionCartPole",
            "NoisyPendulum",
        ),
    ),
    "brax": Family(
        module="envs.adapters.brax",
        extra="brax",
        packages=("brax",),
        names=(
            "ant",
            "fast",
            "halfcheetah",
            "hopper",
            "humanoid",
            "humanoidstandup",
            "inverted_double_pendulum",
            "inverted_pendulum",
            "pusher",
            "reacher",
            "swimmer",
            "walker2d",
        ),
    ),
    "ale": Family(
        module="envs.adapters.ale",
        # Left out: combat, joust, maze_craze and warlords, for two players only; ALE exits on them.
        extra="atari",
        packages=("ale_py", "gymnasium"),
        names=(
            "adventure",
            "air_raid",
            "alien",
            "amidar",
            "assault",
            "asterix",
            "asteroids",
            "atlantis",
            "atlantis2",
            "backgammon",
            "bank_heist",
            "basic_math",
            "battle_zone",
            "beam_rider",
            "berzerk",
            "blackjack",
            "bowling",
            "boxing",
            "breakout",
            "carnival",
            "casino",
            "centipede",
            "chopper_command",
            "crazy_climber",
            "crossbow",
            "darkchambers",
            "defender",
            "demon_attack",
            "donkey_kong",
            "double_dunk",
            "earthworld",
            "elevator_action",
            "enduro",
            "entombed",
            "et",
            "fishing_derby",
            "flag_capture",
            "freeway",
            "frogger",
            "frostbite",
            "galaxian",
            "gopher",
            "gravitar",
            "hangman",
            "haunted_house",
            "hero",
            "human_cannonball",
            "ice_hockey",
            "jamesbond",
            "journey_escape",
            "kaboom",
            "kangaroo",
            "keystone_kapers",
            "king_kong",
            "klax",
            "koolaid",
            "krull",
            "kung_fu_master",
            "laser_gates",
            "lost_luggage",
            "mario_bros",
            "miniature_golf",
            "montezuma_revenge",
            "mr_do",
            "ms_pacman",
            "name_this_game",
            "othello",
            "pacman",
            "phoenix",
            "pitfall",
            "pitfall2",
            "pong",
            "pooyan",
            "private_eye",
            "qbert",
            "riverraid",
            "road_runner",
            "robotank",
            "seaquest",
            "sir_lancelot",
            "skiing",
            "solaris",
            "space_invaders",
            "space_war",
            "star_gunner",
            "superman",
            "surround",
            "tennis",
            "tetris",
            "tic_tac_toe_3d",
            "time_pilot",
            "trondead",
            "turmoil",
            "tutankham",
            "up_n_down",
            "venture",
            "video_checkers",
            "video_chess",
            "video_cube",
            "video_pinball",
            "wizard_of_wor",
            "word_zapper",
            "yars_revenge",
            "zaxxon",
        ),
    ),
    "pgx": Family(
        module="envs.adapters.pgx",
        extra="games",
        packages=("pgx",),
        names=(
            "2048",
            "animal_shogi",
            "backgammon",
            "chess",
            "connect_four",
            "gardner_chess",
            "go_9x9",
            "go_19x19",
            "hex",
            "kuhn_poker",
            "leduc_holdem",
            "othello",
            "shogi",
            "tic_tac_toe",
        ),
    ),
    "craftax": Family(
        module="envs.adapters.craftax", extra="worlds3p", packages=("craftax",), names=("Classic-Symbolic",)
    ),
    "xminigrid": Family(
        module="envs.adapters.xminigrid",
        extra="worlds3p",
        packages=("xminigrid",),
        names=(
            "XLand-MiniGrid-R1-9x9",
            "XLand-MiniGrid-R1-11x11",
            "XLand-MiniGrid-R1-13x13",
            "XLand-MiniGrid-R1-15x15",
            "XLand-MiniGrid-R1-17x17",
            "XLand-MiniGrid-R2-9x9",
            "XLand-MiniGrid-R2-11x11",
            "XLand-MiniGrid-R2-13x13",
            "XLand-MiniGrid-R2-15x15",
            "XLand-MiniGrid-R2-17x17",
            "XLand-MiniGrid-R4-9x9",
            "XLand-MiniGrid-R4-11x11",
            "XLand-MiniGrid-R4-13x13",
            "XLand-MiniGrid-R4-15x15",
            "XLand-MiniGrid-R4-17x17",
            "XLand-MiniGrid-R6-13x13",
            "XLand-MiniGrid-R6-17x17",
            "XLand-MiniGrid-R6-19x19",
            "XLand-MiniGrid-R9-16x16",
            "XLand-MiniGrid-R9-19x19",
            "XLand-MiniGrid-R9-25x25",
            "MiniGrid-BlockedUnlockPickUp",
            "MiniGrid-DoorKey-5x5",
            "MiniGrid-DoorKey-6x6",
            "MiniGrid-DoorKey-8x8",
            "MiniGrid-DoorKey-16x16",
            "MiniGrid-Empty-5x5",
            "MiniGrid-Empty-6x6",
            "MiniGrid-Empty-8x8",
            "MiniGrid-Empty-16x16",
            "MiniGrid-EmptyRandom-5x5",
            "MiniGrid-EmptyRandom-6x6",
            "MiniGrid-EmptyRandom-8x8",
            "MiniGrid-EmptyRandom-16x16",
            "MiniGrid-FourRooms",
            "MiniGrid-LockedRoom",
            "MiniGrid-MemoryS8",
            "MiniGrid-MemoryS16",
            "MiniGrid-MemoryS32",
            "MiniGrid-MemoryS64",
            "MiniGrid-MemoryS128",
            "MiniGrid-Playground",
            "MiniGrid-Unlock",
            "MiniGrid-UnlockPickUp",
        ),
    ),
    "probe": Family(
        module="envs.probes",
        names=(
            "ConstantReward",
            "ObservedReward",
            "DelayedReward",
            "ActionReward",
            "ObservedActionReward",
            "TimeLimitTrap",
            "TwoCategories",
            "CategoryAndReal",
            "LegalActions",
        ),
    ),
}


GYMNASIUM = "gymnasium"  # the family of what is stepped on the host
ENTRY_POINTS = "jaxagent.envs"  # the group under which packages bring environments
_own: dict[str, Any] = {}  # by id: "module:attribute", or what that would be


def register(env_id: str, target: Any) -> None:
    """Give an environment of yours an id: `register("mine/Walk", "my_module:Walk")`.

    The target is a subclass of `envs.types.Environment`, an environment, alone or with its task, or a
    function of overrides that returns these, or where to import any of it from. An installed package does
    the same by an entry point `"mine/Walk" = "my_module:Walk"` of the group "jaxagent.envs". Raises
    ValueError for an id that is not `family/name`, or of a family of this library.
    """
    if not _is_own(env_id):
        raise ValueError(
            f"environment id: got {env_id!r}, expected FAMILY/NAME with a family of your own, such as "
            f"mine/Walk; {', '.join(FAMILIES)} are taken."
        )
    if isinstance(target, str):
        _check_place(target)
    _own[env_id] = target


def _is_own(env_id: str) -> bool:
    """Whether an id is none that this library has or may have."""
    family, _, name = env_id.partition("/")
    return bool(family and name) and family not in (*FAMILIES, GYMNASIUM)


@functools.cache
def _brought() -> dict[str, str]:
    """Environments that installed packages bring."""
    points = metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point.value for point in points if _is_own(point.name)}


def own() -> dict[str, Any]:
    """Environments of yours by id: registered here, or brought by a package."""
    return _brought() | _own


def check_env(env_id: str) -> str:
    """Return an id that `make` knows, or a place `module:attribute`; raises `UnknownName` for others.

    Of gymnasium, `gymnasium/ID`, only gymnasium knows which there are.
    """
    return (
        env_id
        if ":" in env_id or env_id.startswith(f"{GYMNASIUM}/")
        else check_name("environment", env_id, registered())
    )


def registered(family: str | None = None) -> list[str]:
    """List environment ids, `family/name`, yours last; of one family of this library if it is given."""
    if family is None:
        return [env_id for family in FAMILIES for env_id in registered(family)] + sorted(own())
    return [f"{family}/{name}" for name in FAMILIES[check_name("environment family", family, FAMILIES)].names]


def missing_package(family: str) -> str | None:
    """The first package that `family` needs and this installation lacks; imports nothing."""
    packages = FAMILIES[family].packages
    return next((p for p in packages if importlib.util.find_spec(p) is None), None)


def require_source(what: str, family: str) -> None:
    """Raise `MissingExtra`, with the pip line, unless the source of `family` is installed."""
    missing, extra = missing_package(family), FAMILIES[family].extra
    if missing:
        raise MissingExtra(
            f"{what}: got no package {missing!r}, expected the extra {extra!r}; "
            f"install it: pip install 'jaxagent[{extra}]'"
        )


def make(env_id: str, **overrides: Any) -> tuple[Any, Any]:
    """Build an environment and its task: `env, params = make("gymnax/CartPole-v1", length=1.0)`.

    One of yours is named by its id (`register`), or by its place: `make("my_module:Walk")`, where the working
    folder is looked in last. Raises `UnknownName` for an unknown id or parameter, `ValueError` for an
    illegal value and `MissingExtra` where the family's source is not installed.
    """
    check_env(env_id)
    if env_id.startswith(f"{GYMNASIUM}/"):
        return _of_gymnasium(env_id, overrides)
    if ":" in env_id or env_id in own():
        target = own().get(env_id, env_id)
        return importlib.import_module("envs.yours").make(env_id, _found(target), overrides)
    family, name = env_id.split("/", 1)
    require_source(env_id, family)
    return importlib.import_module(FAMILIES[family].module).make(name, **overrides)


def _of_gymnasium(env_id: str, overrides: dict[str, Any]) -> tuple[Any, Any]:
    """An environment of gymnasium, stepped on the host; overrides are those of `gymnasium.make`."""
    if importlib.util.find_spec(GYMNASIUM) is None:
        raise MissingExtra(f"{env_id}: got no package 'gymnasium'; pip install 'jaxagent[gymnasium]'")
    return importlib.import_module("envs.adapters.bridge").make(env_id, **overrides)


def _check_place(place: str) -> None:
    module, _, name = place.partition(":")
    if not module or not name or not all(part.isidentifier() for part in [*module.split("."), name]):
        raise ValueError(f"environment: got {place!r}, expected MODULE:NAME, such as my_module:Walk.")


def _found(target: Any) -> Any:
    """What a place holds."""
    if not isinstance(target, str):
        return target
    _check_place(target)
    module, _, name = target.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # last, so that nothing installed is hidden
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise  # of something that the module imports
        raise UnknownName(
            f"environment {target}: got no module {module!r}, expected one that Python finds, in {folder} "
            "or installed; go to its folder, or install it."
        ) from error
    if not hasattr(found, name):
        raise UnknownName(f"environment {target}: got no {name!r} in {found.__file__}, expected it there.")
    return getattr(found, name)
