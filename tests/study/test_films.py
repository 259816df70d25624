"""A film says how its episode ended, by the task that was played and not by the usual time limit."""

import jax
import jax.numpy as jnp
import pytest

import envs
from jaxagent.evaluate.episodes import record
from jaxagent.study import films
from jaxagent.types import Policy, no_carry

PUSH = Policy(no_carry, lambda params, carry, obs, is_first, key: (jnp.ones(1, jnp.int32), (), carry))


@pytest.mark.parametrize(
    ("limit", "steps", "ends", "said"),
    [
        (500, 40, (True, False), "the end"),  # pushed one way the pole falls
        (5, 40, (False, True), "time is up"),
        (500, 3, (False, False), ""),  # the recording stopped
    ],
)
def test_the_last_frame_says_how(limit, steps, ends, said, tmp_path, monkeypatch):
    env, task = envs.make("classic/CartPole-v1", max_steps=limit)
    episode = jax.device_get(record(env, PUSH, (), task, jax.random.key(0), steps))
    assert (bool(episode.terminated), bool(episode.truncated)) == ends
    texts = []
    monkeypatch.setattr(films, "caption", lambda image, text: texts.append(text) or image)
    films.paint(tmp_path / "film.gif", env, task, episode, "push", 20)
    assert len(texts) == episode.num_steps
    assert texts[-1].endswith(said)
    assert not any(text.endswith(("the end", "time is up")) for text in texts[:-1])
