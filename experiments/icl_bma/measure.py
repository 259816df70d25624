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
from jaxagent.data.prompts import Pool, Rows
from jaxagent.nn import constructions
from jaxagent.study import agents, in_context
from jaxagent.study.in_context import Pairs, Prompt, Setting

EXACT, RIVAL = "exact Bayes", "most probable task"
INFORMATIVE = 0.05  # nats between exact Bayes and its rival, where the two differ
FIRST = 2  # position from which gaps are averaged
BANDWIDTH = 4.0  # of the kernel smoother, about the best one
SHARPNESS = 0.5  # of the constructed softmax attention
SIZES = (8, 16, 32, 64)  # prompt lengths of the slopes
References = dict[str, jax.Array]  # name -> predictions as the model's; `EXACT` is among them


class Task(NamedTuple):
    """One kind of prompts with its exact predictor and the alternatives."""

    setting: Setting
    draw_pool: Callable[[jax.Array], Pool | tuple]  # key -> what a lane draws from; () where tasks are new
    # key, pool, number, is_broken -> prompts; the saboteur's share no task between steps
    draw: Callable[..., Any]
    references: Callable[[jax.Array, Any, Any], References]  # key, pool, prompts ->
    gap: Callable[[jax.Array, jax.Array], jax.Array]  # reference, model -> [B, T]
    # log-probabilities, pool, rows of one prompt -> summed loss over the best task's in hindsight [T]
    excess: Callable[[jax.Array, Any, Rows], jax.Array] | None


def task_of(config: Config, depth: int) -> Task:
    """The task that `config.prompts` names, read by a model of `depth` layers."""
    model = dataclasses.replace(config.model, num_layers=depth)
    return TASKS[config.prompts.task](config.prompts, model)


def pool_of(task: Task, seed: int) -> Any:
    """What a seed's models are trained on, the saboteur too."""
    return task.draw_pool(keys.derive(seed, "bma/pool"))


def _pool_task(p: PromptConfig, model: TransformerConfig) -> Task:
    """Tasks of a frozen pool: exact Bayes averages over it."""
    setting = in_context.walks(p.num_states, p.num_actions, p.num_steps, model)

    def draw_pool(key: jax.Array) -> Pool:
        stack = in_context.new_tables(setting, key, p.num_tasks, p.alpha)
        if p.prior == "zipf":
            return prompts.zipf_pool(stack, p.num_tasks, 1.0)
        return prompts.uniform_pool(stack, p.num_tasks)

    def draw(key: jax.Array, pool: Pool, num: int, is_broken: bool = False) -> Prompt:
        if is_broken:  # of a task drawn anew at every step, a step is one of the average table
            mean = jnp.einsum("d,dck->ck", jnp.exp(pool.log_prior), pool.tables)
            pool = prompts.uniform_pool(mean[None], 1)
        return in_context.draw_from_pool(setting, key, pool, num)

    def of_prompt(key: jax.Array, pool: Pool, rows: Rows) -> References:
        return {
            EXACT: tables.memorising(pool, rows),
            RIVAL: tables.maximum_a_posteriori(pool, rows),
            "posterior sample": tables.thompson(key, pool, rows),
            "prior mean": tables.prior_mean(pool, rows),
            "Polya counts": tables.generalising(rows, p.alpha, setting.num_outcomes),
        }

    return Task(setting, draw_pool, draw, _references(of_prompt), distance.kl, regret.regret)


def _fresh_task(p: PromptConfig, model: TransformerConfig) -> Task:
    """A new task for every prompt: exact Bayes counts, with the prior's pseudo-counts."""
    setting = in_context.walks(p.num_states, p.num_actions, p.num_steps, model)

    def draw(key: jax.Array, pool: tuple, num: int, is_broken: bool = False) -> Prompt:
        del pool
        key_task, key_prompt = jax.random.split(key)
        drawn = in_context.new_tables(setting, key_task, num, p.alpha)
        drawn = jnp.full_like(drawn, 1.0 / setting.num_outcomes) if is_broken else drawn
        return setting.draw(jax.random.split(key_prompt, num), drawn)

    def of_prompt(key: jax.Array, pool: tuple, rows: Rows) -> References:
        del key, pool
        exact = tables.generalising(rows, p.alpha, setting.num_outcomes)
        return {EXACT: exact, "prior mean": jnp.full_like(exact, -jnp.log(float(setting.num_outcomes)))}

    def excess(log_probs: jax.Array, pool: tuple, rows: Rows) -> jax.Array:
        del pool
        best = regret.hindsight_losses(rows, setting.num_contexts, setting.num_outcomes)
        return jnp.cumsum(regret.log_losses(log_probs, rows.outcome)) - best

    return Task(setting, lambda key: (), draw, _references(of_prompt), distance.kl, excess)


def _references(of_prompt: Callable[..., References]) -> Callable[[jax.Array, Any, Prompt], References]:
    """Of prompts `[B, T, K]`: those of one, what uses the prompt alone, and what knows its table."""

    def of_one(key: jax.Array, pool: Any, rows: Rows, table: jax.Array) -> References:
        num_outcomes = table.shape[-1]
        return {
            **of_prompt(key, pool, rows),
            "kernel smoother": tables.kernel_smoother(rows, BANDWIDTH, num_outcomes),
            "bigram counts": tables.bigram(rows, num_outcomes),
            "true task": tables.oracle(table, rows),
        }

    def references(key: jax.Array, pool: Any, prompt: Prompt) -> References:
        prompt_keys = jax.random.split(key, len(prompt.task))
        return jax.vmap(of_one, (0, None, 0, 0))(prompt_keys, pool, prompt.rows, prompt.task)

    return references


def _linear_task(p: PromptConfig, model: TransformerConfig) -> Task:
    """Linear regression with new weights for every prompt: exact Bayes is ridge regression."""
    setting = in_context.regressions(p.input_size, p.num_steps, p.noise, model)
    scale = p.input_size**-0.5

    def draw(key: jax.Array, pool: tuple, num: int, is_broken: bool = False) -> Pairs:
        del pool
        key_task, key_prompt, key_break = jax.random.split(key, 3)
        weights = prompts.linear_tasks(key_task, num, p.input_size, scale)
        pairs = setting.draw(jax.random.split(key_prompt, num), weights)
        # Targets of other inputs: the marginals stay, no weights explain them.
        shuffled = jax.random.permutation(key_break, pairs.y, axis=1)
        return pairs._replace(y=shuffled) if is_broken else pairs

    def references(key: jax.Array, pool: tuple, prompt: Pairs) -> References:
        del key, pool
        return {
            EXACT: jax.vmap(partial(linear.ridge, ratio=(p.noise / scale) ** 2))(*prompt)[0],
            "prior mean": jnp.zeros_like(prompt.y),
            "kernel regression": jax.vmap(partial(linear.kernel_regression, bandwidth=1.0))(*prompt),
        }

    return Task(setting, lambda key: (), draw, references, lambda a, b: jnp.square(a - b), None)


TASKS = {"pool": _pool_task, "fresh": _fresh_task, "linear": _linear_task}


# --- what is measured of one seed -----------------------------------------------------------------


def measure_seed(config: Config, task: Task, seed: int, params: tuple[Any, Any, Any]) -> dict[str, Any]:
    """Everything about one seed, as JSON; `params` as of `compare`."""
    num, pool, key = config.num_prompts, pool_of(task, seed), partial(keys.derive, seed)
    row = compare(task, num, params, pool, key("bma/compare"))
    row["construction"] = construction_errors(config.prompts.input_size, num, key("bma/construction"))
    if config.prompts.task == "pool":
        row["wrong_labels"] = wrong_labels(task, num, params[0], pool, key("bma/wrong"))
        row["new_pool"] = new_pool(task, num, params[0], pool, key("bma/new"))
        row["violation"] = worst_violation(task, num, pool, key("bma/bound"))
    return jax.tree.map(lambda x: np.asarray(x).tolist(), row)


@partial(jax.jit, static_argnums=(0, 1))
def compare(task: Task, num: int, params: tuple[Any, Any, Any], pool: Any, key: jax.Array) -> dict[str, Any]:
    """Gaps between the model and every reference, by position, and regret: scalars and `[T]`.

    `params`: of the model, of the model when it had the saboteur's number of updates, and of the
    saboteur. Gaps are averaged from position `FIRST` on, over the positions at which exact Bayes
    and its rival differ by `INFORMATIVE` (argmax accuracy and late positions cannot tell them).
    """
    key_draw, key_refs = jax.random.split(key)
    prompt = task.draw(key_draw, pool, num)
    model, then, saboteur = (task.setting.predict(p, prompt) for p in params)
    references = task.references(key_refs, pool, prompt)
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
        excess = jax.vmap(task.excess, (0, None, 0))
        for name, log_probs in (("model", model), ("exact", exact)):
            result[f"{name}_excess"] = jnp.mean(excess(log_probs, pool, prompt.rows), axis=0)
    return result


def _weight(task: Task, references: References) -> jax.Array:
    """1 or 0 `[B, T]`: whether a position is late enough, and tells exact Bayes from its rival."""
    gap = task.gap(references[EXACT], references.get(RIVAL, references[EXACT]))
    is_late = (jnp.arange(gap.shape[1]) >= FIRST)[None]
    is_told = gap > INFORMATIVE if RIVAL in references else jnp.ones_like(gap, bool)
    return (is_late & is_told).astype(jnp.float32)


@partial(jax.jit, static_argnums=(0, 1))
def distances_to_exact(task: Task, num: int, snapshots: Any, pool: Any, key: jax.Array) -> jax.Array:
    """Mean total variation (or root squared gap) of each snapshot `[M]` from exact Bayes."""
    key_draw, key_refs = jax.random.split(key)
    prompt = task.draw(key_draw, pool, num)
    exact = task.references(key_refs, pool, prompt)[EXACT]

    def of_model(params: Any) -> jax.Array:
        model = task.setting.predict(params, prompt)
        if exact.ndim == 3:
            return jnp.mean(distance.total_variation(exact, model))
        return jnp.sqrt(jnp.mean(task.gap(exact, model)))

    return jax.lax.map(of_model, snapshots)


def distances(config: Config, task: Task, snapshots: Any) -> list[list[float]]:
    """`distances_to_exact` of every seed's model, `snapshots [M, N, ...]`: `[seeds][M]`."""
    run = partial(distances_to_exact, task, max(1, config.num_prompts // 4))
    of_seed = [agents.take(snapshots, slice(None), i) for i in range(len(config.seeds))]
    return [
        run(kept, pool_of(task, seed), keys.derive(seed, "bma/distance")).tolist()
        for seed, kept in zip(config.seeds, of_seed, strict=True)
    ]


@partial(jax.jit, static_argnums=(0, 1))
def wrong_labels(task: Task, num: int, params: Any, pool: Any, key: jax.Array) -> jax.Array:
    """Correlation of the model's and exact Bayes' log-losses on permuted outcomes, `[]`.

    Every prompt has its own permutation of the symbols of s'; the formula says how badly that goes.
    """
    key_draw, key_permute, key_refs = jax.random.split(key, 3)
    prompt, num_states = task.draw(key_draw, pool, num), task.setting.num_outcomes
    names = jax.vmap(partial(jax.random.permutation, x=num_states))(jax.random.split(key_permute, num))
    outcome = jnp.take_along_axis(names, prompt.rows.outcome, axis=1).astype(jnp.int32)
    num_actions = task.setting.num_contexts // num_states
    states, actions = jnp.divmod(prompt.rows.context, num_actions)
    wrong = in_context.walk_prompt(states, actions, outcome, prompt.task, num_actions)
    model, exact = task.setting.predict(params, wrong), task.references(key_refs, pool, wrong)[EXACT]
    losses = (jax.vmap(regret.log_losses)(says, outcome)[:, FIRST:].reshape(-1) for says in (model, exact))
    return jnp.corrcoef(*losses)[0, 1]


@partial(jax.jit, static_argnums=(0, 1))
def new_pool(task: Task, num: int, params: Any, pool: Any, key: jax.Array) -> dict[str, jax.Array]:
    """Gaps on prompts of another pool, to Bayes over the pool trained on and over the new one."""
    key_pool, key_draw = jax.random.split(key)
    other = task.draw_pool(key_pool)
    prompt = task.draw(key_draw, other, num)
    model = task.setting.predict(params, prompt)

    def gap(averaged: Any) -> jax.Array:
        exact = jax.vmap(partial(tables.memorising, averaged))(prompt.rows)
        return jnp.mean(task.gap(exact, model)[:, FIRST:])

    return {"trained pool": gap(pool), "new pool": gap(other)}


def worst_violation(task: Task, num: int, pool: Any, key: jax.Array) -> float:
    """Most that exact Bayes, in float64, loses beyond its bound on any prefix and task, nats."""
    rows = jax.jit(task.draw, static_argnums=2)(key, pool, num).rows
    with jax.enable_x64(True):
        stack, log_prior = (np.asarray(x, np.float64) for x in pool)
        stack = jnp.asarray(stack / stack.sum(-1, keepdims=True))
        pool = Pool(stack, jax.nn.log_softmax(jnp.asarray(log_prior)))
        worst = jax.vmap(lambda row: regret.worst_violation(tables.memorising(pool, row), pool, row))
        return float(jnp.max(jax.jit(worst)(rows)))


def construction_errors(size: int, num_prompts: int, key: jax.Array) -> dict[str, np.ndarray]:
    """Errors of attention set by hand, for prompt lengths `SIZES`.

    "linear": largest error against ridge regression, relative to predictions above 1; "softmax":
    root mean squared error against the conditional mean that the kernel tends to. In float64, as
    an identity is tested.
    """

    def of_prompt(prompt_key: jax.Array) -> jax.Array:  # [lengths, 2]
        key_task, key_data, key_query = jax.random.split(prompt_key, 3)
        w = prompts.linear_tasks(key_task, 1, size, 1.0, jnp.float64)[0]
        x, y = prompts.linear(key_data, w, max(SIZES), 0.25)
        query = jax.random.normal(key_query, (size,), jnp.float64)
        return jnp.array([_attention_errors(x[:length], y[:length], query, w) for length in SIZES])

    with jax.enable_x64(True):
        # One after another: batched LAPACK calls in one program can wait for each other for ever.
        run = jax.jit(partial(jax.lax.map, of_prompt))
        errors = run(jax.random.split(key, num_prompts))
        softmax = jnp.sqrt(jnp.mean(jnp.square(errors[..., 1]), axis=0))
        return {"linear": np.asarray(jnp.max(errors[..., 0])), "softmax": np.asarray(softmax)}


def _attention_errors(x: jax.Array, y: jax.Array, query: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
    """Of linear attention (relative) and of softmax attention, given pairs of the weights w."""
    exact = linear.ridge(jnp.concatenate([x, query[None]]), jnp.append(y, 0.0), 0.0625)[0][-1]
    ridge = jnp.abs(constructions.ridge_by_attention(x, y, query, 0.0625) - exact)
    kernel = constructions.kernel_by_attention(x, y, query, SHARPNESS) - SHARPNESS * jnp.dot(w, query)
    return ridge / jnp.maximum(jnp.abs(exact), 1.0), kernel
