"""How a model's predictions in context compare with exact Bayes, and with what else it might do."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.icl_bma.config import Config, PromptConfig
from jaxagent import keys
from jaxagent.bayes import distance, linear, regret, tables
from jaxagent.config import TransformerConfig
from jaxagent.data import prompts
from jaxagent.data.prompts import Pool
from jaxagent.nn import constructions
from jaxagent.study import in_context
from jaxagent.study.in_context import Pairs, Prompt, Setting

EXACT = "exact Bayes"
INFORMATIVE = 0.05  # nats between exact Bayes and the most probable task, where the two differ
FIRST = 2  # position from which gaps are averaged
BANDWIDTH = 4.0  # of the kernel smoother, about the best one
SHARPNESS = 0.5  # of the constructed softmax attention
SIZES = (8, 16, 32, 64)  # prompt lengths of the slopes


class Lane(NamedTuple):
    """What the prompts of one model are drawn from."""

    pool: Pool | tuple  # () where every task is new
    is_broken: jax.Array  # bool []: the saboteur, whose prompts share no task between steps


class Task(NamedTuple):
    """One kind of prompts with its exact predictor and the alternatives."""

    setting: Setting
    lane: Callable[[int, bool], Lane]  # seed, is_broken ->
    draw: Callable[[jax.Array, Lane, int], Any]  # key, lane, number -> prompts
    # key, lane, prompts -> name -> predictions as the model's; `EXACT` is among them
    references: Callable[[jax.Array, Lane, Any], dict[str, jax.Array]]
    gap: Callable[[jax.Array, jax.Array], jax.Array]  # reference, model -> [B, T]
    # lane, prompt, log-probabilities -> summed loss over the best task's in hindsight [B, T]
    excess: Callable[[Lane, Any, jax.Array], jax.Array] | None


def task_of(config: Config, depth: int) -> Task:
    """The task that `config.prompts` names, read by a model of `depth` layers."""
    model = dataclasses.replace(config.model, num_layers=depth)
    return TASKS[config.prompts.task](config.prompts, model)


def _pool_task(p: PromptConfig, model: TransformerConfig) -> Task:
    """Tasks of a frozen pool: exact Bayes averages over it."""
    setting = in_context.walks(p.num_states, p.num_actions, p.num_steps, model)

    def draw(key: jax.Array, lane: Lane, num: int) -> Prompt:
        key_task, key_prompt = jax.random.split(key)
        drawn = in_context.pool_tasks(key_task, lane.pool, num)
        # Of a task drawn anew at every step, a step is one of the average table.
        mean = jnp.einsum("d,dck->ck", jnp.exp(lane.pool.log_prior), lane.pool.tables)
        drawn = jnp.where(lane.is_broken, mean[None], drawn)
        return setting.draw(jax.random.split(key_prompt, num), drawn)

    def references(key: jax.Array, lane: Lane, prompt: Prompt) -> dict[str, jax.Array]:
        sample_keys = jax.random.split(key, prompt.task.shape[0])
        by_row = partial(_by_row, prompt)
        return {
            EXACT: by_row(partial(tables.memorising, lane.pool)),
            "most probable task": by_row(partial(tables.maximum_a_posteriori, lane.pool)),
            "posterior sample": jax.vmap(lambda k, r: tables.thompson(k, lane.pool, r))(
                sample_keys, prompt.rows
            ),
            "prior mean": by_row(partial(tables.prior_mean, lane.pool)),
            "Polya counts": by_row(lambda r: tables.generalising(r, p.alpha, setting.num_outcomes)),
            **_from_counts(setting, prompt),
        }

    def excess(lane: Lane, prompt: Prompt, log_probs: jax.Array) -> jax.Array:
        return jax.vmap(lambda lp, r: regret.regret(lp, lane.pool, r))(log_probs, prompt.rows)

    return Task(setting, partial(_pool_lane, p, setting), draw, references, distance.kl, excess)


def _pool_lane(p: PromptConfig, setting: Setting, seed: int, is_broken: bool) -> Lane:
    return Lane(draw_pool(p, setting, keys.derive(seed, "bma/pool")), jnp.array(is_broken))


def draw_pool(p: PromptConfig, setting: Setting, key: jax.Array) -> Pool:
    """A frozen pool of the configured size and prior."""
    stack = prompts.dirichlet_tables(key, p.num_tasks, setting.num_contexts, setting.num_outcomes, p.alpha)
    if p.prior == "zipf":
        return prompts.zipf_pool(stack, p.num_tasks, 1.0)
    return prompts.uniform_pool(stack, p.num_tasks)


def _fresh_task(p: PromptConfig, model: TransformerConfig) -> Task:
    """A new task for every prompt: exact Bayes counts, with the prior's pseudo-counts."""
    setting = in_context.walks(p.num_states, p.num_actions, p.num_steps, model)
    num_outcomes = setting.num_outcomes

    def draw(key: jax.Array, lane: Lane, num: int) -> Prompt:
        key_task, key_prompt = jax.random.split(key)
        drawn = prompts.dirichlet_tables(key_task, num, setting.num_contexts, num_outcomes, p.alpha)
        drawn = jnp.where(lane.is_broken, 1.0 / num_outcomes, drawn)
        return setting.draw(jax.random.split(key_prompt, num), drawn)

    def references(key: jax.Array, lane: Lane, prompt: Prompt) -> dict[str, jax.Array]:
        del key, lane
        exact = _by_row(prompt, lambda r: tables.generalising(r, p.alpha, num_outcomes))
        uniform = jnp.full_like(exact, -jnp.log(float(num_outcomes)))
        return {EXACT: exact, "prior mean": uniform, **_from_counts(setting, prompt)}

    def excess(lane: Lane, prompt: Prompt, log_probs: jax.Array) -> jax.Array:
        del lane
        best = _by_row(prompt, lambda r: regret.hindsight_losses(r, setting.num_contexts, num_outcomes))
        losses = jax.vmap(regret.log_losses)(log_probs, prompt.rows.outcome)
        return jnp.cumsum(losses, axis=1) - best

    return Task(setting, _no_pool, draw, references, distance.kl, excess)


def _linear_task(p: PromptConfig, model: TransformerConfig) -> Task:
    """Linear regression with new weights for every prompt: exact Bayes is ridge regression."""
    setting = in_context.regressions(p.input_size, p.num_steps, p.noise, model)
    scale = p.input_size**-0.5

    def draw(key: jax.Array, lane: Lane, num: int) -> Pairs:
        key_task, key_prompt, key_break = jax.random.split(key, 3)
        weights = prompts.linear_tasks(key_task, num, p.input_size, scale)
        pairs = setting.draw(jax.random.split(key_prompt, num), weights)
        # Targets of other inputs: the marginals stay, no weights explain them.
        shuffled = jax.random.permutation(key_break, pairs.y, axis=1)
        return pairs._replace(y=jnp.where(lane.is_broken, shuffled, pairs.y))

    def references(key: jax.Array, lane: Lane, prompt: Pairs) -> dict[str, jax.Array]:
        del key, lane
        ridge = partial(linear.ridge, ratio=(p.noise / scale) ** 2)
        kernel = partial(linear.kernel_regression, bandwidth=1.0)
        return {
            EXACT: jax.vmap(ridge)(*prompt)[0],
            "prior mean": jnp.zeros_like(prompt.y),
            "kernel regression": jax.vmap(kernel)(*prompt),
        }

    def gap(reference: jax.Array, model: jax.Array) -> jax.Array:
        return jnp.square(reference - model)

    return Task(setting, _no_pool, draw, references, gap, None)


def _no_pool(seed: int, is_broken: bool) -> Lane:
    del seed
    return Lane((), jnp.array(is_broken))


TASKS = {"pool": _pool_task, "fresh": _fresh_task, "linear": _linear_task}


def _by_row(prompt: Prompt, fn: Callable) -> jax.Array:
    return jax.vmap(fn)(prompt.rows)


def _from_counts(setting: Setting, prompt: Prompt) -> dict[str, jax.Array]:
    """What uses the prompt alone, and what knows its task."""
    k = setting.num_outcomes
    return {
        "kernel smoother": _by_row(prompt, lambda r: tables.kernel_smoother(r, BANDWIDTH, k)),
        "bigram counts": _by_row(prompt, lambda r: tables.bigram(r, k)),
        "true task": jax.vmap(tables.oracle)(prompt.task, prompt.rows),
    }


# --- what is measured of one seed -----------------------------------------------------------------


def measurements(config: Config, task: Task) -> Callable[..., dict[str, Any]]:
    """Everything about one seed: `(seed, params, params of as many updates, broken) -> JSON`."""
    p, num = config.prompts, config.num_prompts
    compared = jax.jit(partial(compare, task, num))
    wrong = jax.jit(partial(wrong_labels, task, num, p.num_actions))
    other = jax.jit(partial(new_pool, task, p, num))

    def measure(seed: int, params: Any, then: Any, broken: Any) -> dict[str, Any]:
        lane, key = task.lane(seed, False), partial(keys.derive, seed)
        row = compared((params, then, broken), lane, key("bma/compare"))
        row["construction"] = construction_errors(p.input_size, num, key("bma/construction"))
        if p.task == "pool":
            row["wrong_labels"] = wrong(params, lane, key("bma/wrong"))
            row["new_pool"] = other(params, lane, key("bma/new"))
            row["violation"] = worst_violation(task, num, lane, key("bma/bound"))
        return jax.tree.map(lambda x: np.asarray(x).tolist(), row)

    return measure


def compare(
    task: Task, num_prompts: int, params: tuple[Any, Any, Any], lane: Lane, key: jax.Array
) -> dict[str, Any]:
    """Gaps between the model and every reference, by position, and regret: scalars and `[T]`.

    `params`: of the model, of the model when it had the saboteur's number of updates, and of the
    saboteur. Gaps are averaged from position `FIRST` on, over the positions at which exact Bayes
    and the most probable task differ by `INFORMATIVE` (argmax accuracy and late positions cannot
    tell them).
    """
    key_draw, key_refs = jax.random.split(key)
    prompt = task.draw(key_draw, lane, num_prompts)
    model, then, saboteur = (task.setting.predict(p, prompt) for p in params)
    references = task.references(key_refs, lane, prompt)
    exact = references[EXACT]
    weight = _weight(task, references)

    def mean(gap: jax.Array) -> jax.Array:
        return jnp.sum(gap * weight) / jnp.maximum(jnp.sum(weight), 1.0)

    result = {
        "gaps": {name: mean(task.gap(r, model)) for name, r in references.items()},
        "as_many_updates": mean(task.gap(exact, then)),
        "saboteur": mean(task.gap(exact, saboteur)),
        "by_position": jnp.mean(task.gap(exact, model), axis=0),
        "saboteur_by_position": jnp.mean(task.gap(exact, saboteur), axis=0),
        "informative_share": jnp.mean(weight),
    }
    if task.excess is not None:
        for name, log_probs in (("model", model), ("exact", exact)):
            result[f"{name}_excess"] = jnp.mean(task.excess(lane, prompt, log_probs), axis=0)
    return result


def _weight(task: Task, references: dict[str, jax.Array]) -> jax.Array:
    gap = task.gap(references[EXACT], references.get("most probable task", references[EXACT]))
    is_late = (jnp.arange(gap.shape[1]) >= FIRST)[None]
    is_told = gap > INFORMATIVE if "most probable task" in references else jnp.ones_like(is_late)
    return (is_late & is_told).astype(jnp.float32) * jnp.ones_like(gap)


def distances_to_exact(task: Task, num_prompts: int, snapshots: Any, lane: Lane, key: jax.Array) -> jax.Array:
    """Mean total variation (or root squared gap) of each snapshot `[M]` from exact Bayes."""
    key_draw, key_refs = jax.random.split(key)
    prompt = task.draw(key_draw, lane, num_prompts)
    exact = task.references(key_refs, lane, prompt)[EXACT]

    def one(params: Any) -> jax.Array:
        model = task.setting.predict(params, prompt)
        if exact.ndim == 3:
            return jnp.mean(distance.total_variation(exact, model))
        return jnp.sqrt(jnp.mean(task.gap(exact, model)))

    return jax.lax.map(one, snapshots)


def distances(config: Config, depth: int, snapshots: Any) -> list[list[float]]:
    """`distances_to_exact` of every seed's model, `snapshots [M, N, ...]`: `[seeds][M]`."""
    task = task_of(config, depth)
    run = jax.jit(partial(distances_to_exact, task, max(1, config.num_prompts // 4)))
    result = []
    for i, seed in enumerate(config.seeds):
        of_seed = jax.tree.map(lambda x, i=i: x[:, i], snapshots)
        found = run(of_seed, task.lane(seed, False), keys.derive(seed, "bma/distance"))
        result.append(np.asarray(found).tolist())
    return result


def wrong_labels(
    task: Task, num_prompts: int, num_actions: int, params: Any, lane: Lane, key: jax.Array
) -> jax.Array:
    """Correlation of the model's and exact Bayes' log-losses on permuted outcomes, `[]`.

    Every prompt has its own permutation of the symbols of s'; the formula says how badly that goes.
    """
    key_draw, key_permute, key_refs = jax.random.split(key, 3)
    prompt, k = task.draw(key_draw, lane, num_prompts), task.setting.num_outcomes
    rows, lanes = prompt.rows, jax.random.split(key_permute, num_prompts)
    names = jax.vmap(lambda one: jax.random.permutation(one, k))(lanes)
    outcome = jnp.take_along_axis(names, rows.outcome, axis=1).astype(jnp.int32)
    wrong = in_context.walk_prompt(
        rows.context // num_actions, rows.context % num_actions, outcome, prompt.task, num_actions
    )
    losses = jax.vmap(regret.log_losses)
    model = losses(task.setting.predict(params, wrong), outcome)
    exact = losses(task.references(key_refs, lane, wrong)[EXACT], outcome)
    return jnp.corrcoef(model[:, FIRST:].reshape(-1), exact[:, FIRST:].reshape(-1))[0, 1]


def new_pool(
    task: Task, p: Any, num_prompts: int, params: Any, lane: Lane, key: jax.Array
) -> dict[str, jax.Array]:
    """Gaps on prompts of another pool, to Bayes over the pool trained on and over the new one."""
    key_pool, key_draw = jax.random.split(key)
    other = lane._replace(pool=draw_pool(p, task.setting, key_pool))
    prompt = task.draw(key_draw, other, num_prompts)
    model = task.setting.predict(params, prompt)
    pools = {"trained pool": lane, "new pool": other}
    return {
        name: jnp.mean(task.gap(_by_row(prompt, partial(tables.memorising, of.pool)), model)[:, FIRST:])
        for name, of in pools.items()
    }


def worst_violation(task: Task, num_prompts: int, lane: Lane, key: jax.Array) -> float:
    """Most that exact Bayes, in float64, loses beyond its bound on any prefix and task, nats."""
    rows = jax.jit(task.draw, static_argnums=2)(key, lane, num_prompts).rows
    with jax.enable_x64(True):
        stack = np.asarray(lane.pool.tables, np.float64)
        pool = Pool(
            jnp.asarray(stack / stack.sum(-1, keepdims=True)),
            jax.nn.log_softmax(jnp.asarray(np.asarray(lane.pool.log_prior, np.float64))),
        )

        def one(row: Any) -> jax.Array:
            return regret.worst_violation(tables.memorising(pool, row), pool, row)

        return float(jnp.max(jax.jit(jax.vmap(one))(rows)))


def construction_errors(size: int, num_prompts: int, key: jax.Array) -> dict[str, jax.Array]:
    """Errors of attention set by hand, for prompt lengths `SIZES`.

    "linear": largest error against ridge regression, relative to predictions above 1; "softmax":
    root mean squared error against the conditional mean that the kernel tends to. In float64, as
    an identity is tested.
    """

    def one(prompt_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_task, key_data, key_query = jax.random.split(prompt_key, 3)
        w = prompts.linear_tasks(key_task, 1, size, 1.0, jnp.float64)[0]
        x, y = prompts.linear(key_data, w, max(SIZES), 0.25)
        query = jax.random.normal(key_query, (size,), jnp.float64)
        exact, found, kernel = [], [], []
        for length in SIZES:
            whole = jnp.concatenate([x[:length], query[None]]), jnp.append(y[:length], 0.0)
            exact.append(linear.ridge(*whole, 0.0625)[0][-1])
            found.append(constructions.ridge_by_attention(x[:length], y[:length], query, 0.0625))
            kernel.append(
                constructions.kernel_by_attention(x[:length], y[:length], query, SHARPNESS)
                - SHARPNESS * jnp.dot(w, query)
            )
        error = jnp.abs(jnp.stack(found) - jnp.stack(exact)) / jnp.maximum(jnp.abs(jnp.stack(exact)), 1.0)
        return error, jnp.stack(kernel)

    with jax.enable_x64(True):
        # One after another: batched LAPACK calls in one program can wait for each other for ever.
        run = jax.jit(lambda prompt_keys: jax.lax.map(one, prompt_keys))
        error, kernel = run(jax.random.split(key, num_prompts))
        return {
            "linear": np.asarray(jnp.max(error)),
            "softmax": np.asarray(jnp.sqrt(jnp.mean(jnp.square(kernel), axis=0))),
        }
