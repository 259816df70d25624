"""In-context learning: prompts of a task, the model that reads them, and its training in lanes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent import keys
from jaxagent.bayes.regret import log_losses
from jaxagent.config import NUM_SHARDS, FitConfig, TransformerConfig
from jaxagent.data import prompts
from jaxagent.data.prompts import Pool, Rows
from jaxagent.nn import regression_transformer
from jaxagent.nn.sequence_model import token_model
from jaxagent.nn.transformer import Vocabulary
from jaxagent.study.study import Lanes
from jaxagent.tokens import stream
from jaxagent.tokens.component import Domain
from jaxagent.train import loops, optimizer


class Prompt(NamedTuple):
    """Prompts of table tasks: the tokens that the model reads, and the outcomes by context."""

    tokens: stream.Tokens  # value [B, L]
    rows: Rows  # [B, T]
    task: jax.Array  # [B, C, K]: the table that made each, for the oracle


class Pairs(NamedTuple):
    """Prompts of linear regression."""

    x: jax.Array  # [B, T, d]
    y: jax.Array  # [B, T]


class Setting(NamedTuple):
    """A kind of task: how prompts are drawn, what a model predicts of them, and its loss."""

    init: Callable[[jax.Array], Any]  # key -> params
    draw: Callable[[jax.Array, jax.Array], Any]  # keys [B], tasks [B, ...] -> prompts [B]
    # params, prompts -> log-probabilities [B, T, K] of each outcome, or predictions [B, T]
    predict: Callable[[Any, Any], jax.Array]
    loss: Callable[[Any, Any], jax.Array]
    tokens_per_prompt: int
    num_contexts: int = 1
    num_outcomes: int = 0


def urns(num_outcomes: int, num_steps: int, config: TransformerConfig) -> Setting:
    """Balls and urns: a start token, then the outcomes; each is predicted from those before it."""
    domain = Domain(1, 0, num_outcomes, 0, 0)

    def draw(prompt_keys: jax.Array, tables: jax.Array) -> Prompt:
        rows = jax.vmap(partial(prompts.urn, num_steps=num_steps))(prompt_keys, tables)
        start = jnp.full_like(rows.outcome[:, :1], num_outcomes)
        seen = jnp.concatenate([start, rows.outcome[:, :-1]], axis=1)[..., None]
        return Prompt(_tokens(seen, seen[..., :0], domain), rows, tables)

    vocabulary = Vocabulary(0, num_outcomes + 1, 1, 1)
    return _tables(config, vocabulary, draw, 1, num_outcomes, num_steps, period=1, place=0)


def walks(num_states: int, num_actions: int, num_steps: int, config: TransformerConfig) -> Setting:
    """Random MDPs under uniform actions: s, a, s' of every step; s' is predicted after a.

    The next state is written twice, as s' and as the s that follows: all of what one step says
    about the task then stands at one time, so that attention need not carry it over.
    """

    def draw(prompt_keys: jax.Array, tables: jax.Array) -> Prompt:
        walk = partial(prompts.walk, num_actions=num_actions, num_steps=num_steps)
        states, actions = jax.vmap(walk)(prompt_keys, tables)
        return walk_prompt(states[:, :-1], actions, states[:, 1:], tables, num_actions)

    num_contexts = num_states * num_actions
    vocabulary = Vocabulary(0, max(num_states, num_actions), 3, 1)
    return _tables(config, vocabulary, draw, num_contexts, num_states, num_steps, period=3, place=1)


def walk_prompt(
    states: jax.Array, actions: jax.Array, outcomes: jax.Array, tables: jax.Array, num_actions: int
) -> Prompt:
    """Prompts of steps s, a, s' `[B, T]` each, which need not join up, of tables `[B, C, K]`."""
    step = jnp.stack([actions, outcomes], axis=-1)
    tokens = _tokens(states[..., None], step, Domain(1, 2, num_actions, 0, 0))
    return Prompt(tokens, Rows(states * num_actions + actions, outcomes), tables)


def _tokens(obs: jax.Array, action: jax.Array, domain: Domain) -> stream.Tokens:
    return stream.flatten(obs, action, jnp.zeros(obs.shape[:2], jnp.int32), domain)


def _tables(config, vocabulary, draw, num_contexts, num_outcomes, num_steps, period, place) -> Setting:
    """A setting of table tasks; the outcome is predicted after token `place` of each step."""
    model = token_model(config, vocabulary)

    def predict(params: Any, prompt: Prompt) -> jax.Array:
        logits = model.apply(params, prompt.tokens)[:, place::period, :num_outcomes]
        return jax.nn.log_softmax(logits)

    def loss(params: Any, prompt: Prompt) -> jax.Array:
        return jnp.mean(jax.vmap(log_losses)(predict(params, prompt), prompt.rows.outcome))

    return Setting(model.init, draw, predict, loss, period * num_steps, num_contexts, num_outcomes)


def regressions(input_size: int, num_steps: int, noise: float, config: TransformerConfig) -> Setting:
    """Linear regression: pairs x, y of real vectors; y is predicted where x is read."""
    model = regression_transformer.model(config, input_size)

    def draw(prompt_keys: jax.Array, weights: jax.Array) -> Pairs:
        pairs = partial(prompts.linear, num_steps=num_steps, noise=noise)
        return Pairs(*jax.vmap(pairs)(prompt_keys, weights))

    def predict(params: Any, prompt: Pairs) -> jax.Array:
        return model.apply(params, prompt.x, prompt.y)

    def loss(params: Any, prompt: Pairs) -> jax.Array:
        return jnp.mean(jnp.square(predict(params, prompt) - prompt.y))

    return Setting(model.init, draw, predict, loss, 2 * num_steps)


def new_tables(setting: Setting, key: jax.Array, num_tasks: int, alpha: float) -> jax.Array:
    """Tables `[D, C, K]` of tasks of a setting, of the Dirichlet prior."""
    return prompts.dirichlet_tables(key, num_tasks, setting.num_contexts, setting.num_outcomes, alpha)


def draw_from_pool(setting: Setting, key: jax.Array, pool: Pool, num_prompts: int) -> Any:
    """Draw a task of the pool for each of B prompts, then the prompts, leaves `[B, ...]`."""
    key_task, key_prompt = jax.random.split(key)
    index = jax.vmap(prompts.draw_task, (0, None))(jax.random.split(key_task, num_prompts), pool)
    return setting.draw(jax.random.split(key_prompt, num_prompts), pool.tables[index])


def pretrain(
    setting: Setting,
    lanes: Any,
    draw: Callable[[jax.Array, Any, int], Any],
    seeds: Sequence[int],
    fit: FitConfig,
    *,
    in_turn: bool,
) -> Lanes:
    """Train one model a lane on prompts drawn anew in every update; its history stays.

    `lanes`: leaves `[N, ...]`, what `draw(key, lane, num_prompts)` draws from. Equal `seeds` share
    first parameters and keys.
    """

    def loss(params: Any, prompt: Any, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        del data
        return setting.loss(params, prompt), {}

    def sample(lane: Any, key: jax.Array) -> Any:
        return draw(key, lane, fit.batch_size // NUM_SHARDS)

    def inputs() -> tuple[Any]:
        lane_keys = jnp.stack([keys.derive(seed, "in-context/init") for seed in seeds])
        return (jax.jit(jax.vmap(setting.init))(lane_keys),)

    return Lanes(
        loops.supervised(loss, sample, optimizer.adamw(fit)),
        inputs,
        fit,
        keys.derive(0, "in-context/pretrain"),
        ids=seeds,
        data=lanes,
        data_axis=0,
        history=True,
        units={"tokens": fit.batch_size * setting.tokens_per_prompt},
        in_turn=in_turn,
    )
