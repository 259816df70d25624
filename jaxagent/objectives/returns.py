"""Returns and advantages that bootstrap through truncation and never through termination."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.scan import scan


def gae(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    *,
    discount: float,
    trace: float,
) -> jax.Array:
    """Generalised advantage estimates `[T, ...]` (Schulman et al. 2016, eq. 16).

    All arguments are `[T, ...]`; `next_value[t]` is the value of the *true* observation after step
    t (`Trajectory.final_obs`), so a truncated step bootstraps from what the agent would have seen.
    A termination multiplies that value by 0; either end stops the trace.

    Differs: the paper has one "done"; here termination and truncation are two masks.
    """
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    keeps_trace = jnp.where(terminated | truncated, 0.0, discount * trace)

    def backward(advantage, inputs):
        delta_t, keeps_t = inputs
        advantage = delta_t + keeps_t * advantage
        return advantage, advantage

    _, advantage = scan(backward, jnp.zeros_like(delta[0]), (delta, keeps_trace), reverse=True)
    return advantage


def lambda_returns(
    reward: jax.Array, discount: jax.Array, next_value: jax.Array, *, trace: float
) -> jax.Array:
    """`G_t = r_t + d_t ((1 - trace) v_{t+1} + trace G_{t+1})`, `[T, ...]` (Sutton 2018, eq. 12.18).

    All arguments are `[T, ...]`; the last step bootstraps from its `next_value`. A discount of 0
    ends the return, a negative one hands the move to the other player of a zero-sum game.
    """

    def backward(following, inputs):
        reward_t, discount_t, value_t = inputs
        following = reward_t + discount_t * ((1.0 - trace) * value_t + trace * following)
        return following, following

    _, returns = scan(backward, next_value[-1], (reward, discount, next_value), reverse=True)
    return returns


def q_lambda(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    next_value: jax.Array,
    *,
    discount: float,
    trace: float,
) -> jax.Array:
    """Q(lambda) returns `[T, ...]` of the actions taken (Peng and Williams 1996; Gallici et al. 2024).

    All arguments are `[T, ...]`; `next_value[t]` is the greatest action value of the *true*
    observation after step t. A termination hides it; a truncation pays it at once, and so does the
    last step. What was explored does not cut the trace, as in Peng's and not as in Watkins's.

    Differs: the paper has one "done"; here termination and truncation are two masks.
    """
    next_value = jnp.where(terminated, 0.0, next_value)
    reward = jnp.where(truncated, reward + discount * next_value, reward)
    goes_on = jnp.where(terminated | truncated, 0.0, discount)
    return lambda_returns(reward, goes_on, next_value, trace=trace)


class VTrace(NamedTuple):
    """What V-trace makes of a segment."""

    target: jax.Array  # [T, ...], of the values: `v_s`
    advantage: jax.Array  # [T, ...], of the policy's gradient, with its clipped ratio: `rho_s (q_s - V(x_s))`


def v_trace(
    ratio: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    *,
    discount: float,
    trace: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> VTrace:
    """Targets and advantages `[T, ...]` of another policy's actions (Espeholt et al. 2018, eq. 1).

    All arguments are `[T, ...]`: `ratio` is the action's probability now over that when it was taken, and
    `value`, `next_value` and the two ends are as in `gae`. Ratios count up to `rho_bar` in what is learned,
    and up to `c_bar` in how far back it goes. Of a policy's own actions the targets are lambda-returns. No
    gradient is stopped here.

    Differs: the paper has one discount; here termination and truncation are two masks, of which either stops
    the trace, and `q_s` of a truncated step, as of the last one, is its reward and `next_value`. `trace`
    is the paper's lambda, which multiplies `c`.
    """
    rho, c = jnp.minimum(ratio, rho_bar), trace * jnp.minimum(ratio, c_bar)
    goes_on = jnp.where(terminated | truncated, 0.0, discount)
    one_step = reward + discount * jnp.where(terminated, 0.0, next_value)
    delta = rho * (one_step - value)

    def backward(following, inputs):
        delta_t, goes_on_t, c_t = inputs
        here = delta_t + goes_on_t * c_t * following
        return here, (here, goes_on_t * following)

    none = jnp.zeros_like(delta[0])
    _, (above, following) = scan(backward, none, (delta, goes_on, c), reverse=True)
    return VTrace(value + above, rho * (one_step + following - value))


def n_step_returns(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    value: jax.Array,
    *,
    discount: float,
    num_steps: int,
) -> jax.Array:
    """Targets `[T - n, ...]` of n rewards and a bootstrap (Sutton and Barto 2018, eq. 7.1).

    All arguments are `[T, ...]`, `value[t]` of the state before step t. A termination ends the
    return. At a step that was truncated, what followed is unknown, and its own value stands for it.
    """
    size = reward.shape[0] - num_steps
    cut = truncated & ~terminated
    total, weight = jnp.zeros_like(reward[:size]), jnp.ones_like(reward[:size])
    for i in range(num_steps):
        here = slice(i, i + size)
        total = total + weight * jnp.where(cut[here], value[here], reward[here])
        weight = weight * jnp.where(terminated[here] | truncated[here], 0.0, discount)
    return total + weight * value[num_steps:]


def n_step_parts(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    discount: jax.Array | float,
    num_steps: jax.Array | int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums of discounted rewards, factors of the bootstraps and indices of their states, `[b]` each.

    All arguments are `[N, b]`, N at least `num_steps`, which may be traced (annealing). An index is
    int32 in [0, num_steps]. A termination ends the return. At a step that was
    truncated, what followed is unknown, and the bootstrap is of the state before it: index 0 where
    the first step is one, of which nothing can be learned.
    """
    cut = truncated & ~terminated
    total, weight = jnp.zeros_like(reward[0]), jnp.ones_like(reward[0])
    at, goes_on = jnp.zeros(reward.shape[1:], jnp.int32), jnp.ones(reward.shape[1:], bool)
    for i in range(reward.shape[0]):
        takes = goes_on & ~cut[i] & (i < num_steps)
        total = jnp.where(takes, total + weight * reward[i], total)
        weight = jnp.where(takes, jnp.where(terminated[i], 0.0, weight * discount), weight)
        at = jnp.where(takes, i + 1, at)
        goes_on = takes & ~terminated[i]
    return total, weight, at
