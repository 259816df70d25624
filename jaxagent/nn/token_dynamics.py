"""What follows a state of the action-state transformer, one token of an action after another.

A state is the vector `[..., D]` at the token that was seen last. Each component of an action moves it on: the
policy reads component i where those before it were heard, and after the last the state is that of the next
env step, as far as it can be known. Self-prediction trains this module, and search walks it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.nn.dense import Dense
from jaxagent.nn.latent_model import Projector
from jaxagent.nn.transformer import Vocabulary, rms_norm, value_table


class Dynamics(NamedTuple):
    """The parts as plain functions of the parameters; leading axes are any."""

    init: Callable  # key -> params
    hear: Callable  # (params, states [..., D], tokens [...], component i) -> states [..., D]
    # (params, states [..., D], tokens [..., m] of an action) -> states [..., m, D] after each of them
    step: Callable
    reward: Callable  # (params, states [..., D] after an action) -> [...]
    project: Callable  # (params, states [..., D]) -> the vectors [..., P] in which states are compared
    predict: Callable  # (params, vectors [..., P] of predicted states) -> vectors [..., P]


class DynamicsNet(nn.Module):
    """Transition, reward head and projections, a method each."""

    vocabulary: Vocabulary
    width: int
    num_components: int  # m, of an action
    projection_size: int

    def setup(self) -> None:
        """Name the parts."""
        self.listener = Listener(self.vocabulary, self.width, self.num_components)
        self.reward_hidden, self.reward_output = Dense(self.width), Dense(1)
        self.projector, self.predictor = Projector(self.projection_size), Projector(self.projection_size)

    def hear(self, state: jax.Array, token: jax.Array, component: int) -> jax.Array:
        """The state `[..., D]` after one more token `[...]`, of component i of the action."""
        return self.listener(state, token, component)

    def reward(self, state: jax.Array) -> jax.Array:
        """The reward `[...]` of the action that led to a state `[..., D]`."""
        return self.reward_output(nn.gelu(self.reward_hidden(state)))[..., 0]

    def project(self, state: jax.Array) -> jax.Array:
        """The vector `[..., P]` in which states `[..., D]` are compared."""
        return self.projector(state)

    def predict(self, projection: jax.Array) -> jax.Array:
        """Prediction of the true state's projection, of the predicted one's; both `[..., P]`."""
        return self.predictor(projection)

    def __call__(self) -> jax.Array:
        """Run every part once, to make its parameters."""
        state = jnp.zeros((1, self.width))
        for i in range(self.num_components):
            state = self.hear(state, jnp.zeros((1,), jnp.int32), i)
        return self.predict(self.project(state)) + self.reward(state)[:, None]


class Listener(nn.Module):
    """A state `[..., D]` and one token `[...]` to the state after it: one hidden layer beside the stream."""

    vocabulary: Vocabulary
    width: int
    num_components: int

    @nn.compact
    def __call__(self, state: jax.Array, token: jax.Array, component: int) -> jax.Array:
        # As large as the states, which have a norm behind them: small ones are not heard.
        values = rms_norm(value_table(self, self.vocabulary, self.width), "value_norm")
        hidden = 2 * self.width
        place = self.param("place", nn.initializers.normal(0.02), (self.num_components, hidden))[component]
        told = Dense(hidden, use_bias=False, name="token")(values)[token]
        x = Dense(hidden, name="state")(state) + told + place[(None,) * (state.ndim - 1)]
        return rms_norm(state + Dense(self.width, name="out")(nn.gelu(x)), "norm")


def dynamics(vocabulary: Vocabulary, width: int, num_components: int, projection_size: int) -> Dynamics:
    """The parts for states of `width` and actions of `num_components` tokens of a vocabulary."""
    net = DynamicsNet(vocabulary, width, num_components, projection_size)

    def hear(params: Any, state: jax.Array, token: jax.Array, component: int) -> jax.Array:
        return net.apply(params, state, token, component, method="hear")

    def step(params: Any, state: jax.Array, tokens: jax.Array) -> jax.Array:
        heard = []
        for i in range(num_components):
            state = hear(params, state, tokens[..., i], i)
            heard.append(state)
        return jnp.stack(heard, axis=-2)

    def of(method: str) -> Callable:
        return lambda params, x: net.apply(params, x, method=method)

    return Dynamics(net.init, hear, step, of("reward"), of("project"), of("predict"))
