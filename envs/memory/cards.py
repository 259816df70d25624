"""Cards that are shown one by one and asked for later (POPGym, Morad et al. 2023, section 4).

Differs: suits are drawn with replacement, so that no card tells of those to come; decks are short,
and an answer that is right adds 1 / answers, one that is wrong takes as much away.
"""

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.memory.hidden import HidingEnvironment
from envs.types import Component
from envs.words import below

SUITS = 4
SUIT_BITS = 2  # of one card in `CardState.past`
MOST_CARDS = 16  # that 32 bits hold
COUNT_BITS = 8  # of one suit's count in `CardState.past`


class CardParams(NamedTuple):
    """The task of most."""

    num_cards: int = 16  # env steps of an episode; of playing back, half an episode
    max_steps: int = 256


class RepeatPreviousParams(NamedTuple):
    """The task of repeating an earlier card."""

    lag: int = 4  # cards back
    num_cards: int = 16
    max_steps: int = 256


class AutoencodeParams(NamedTuple):
    """The task of playing back."""

    num_cards: int = 4  # shown, and then played back
    max_steps: int = 256


class CardState(NamedTuple):
    """State of one game, fields `[]`; of B lanes, fields `[B]`."""

    card: jax.Array  # int32: the suit on the table
    query: jax.Array  # int32: the suit that is asked for, where one is
    past: jax.Array  # uint32: what is to be known of the cards so far, packed
    num_right: jax.Array  # int32: right answers so far, for the picture only
    time: jax.Array  # int32, env steps


class Cards(HidingEnvironment):
    """Shared frame: what of a card is remembered, what is asked, and when."""

    num_reset_words = 2
    num_step_words = 2
    num_answers = SUITS
    asks_suit = False
    defaults = CardParams()

    def specify(self, task):
        del task
        self.action_spec = (Component("answer", "category", cardinality=self.num_answers),)
        self.hidden_spec = (Component("right answer", "category", cardinality=self.num_answers),)

    @abc.abstractmethod
    def remember(self, state, card, params) -> jax.Array:
        """`past` once `card` is on the table, uint32."""

    @abc.abstractmethod
    def answer(self, state, params) -> jax.Array:
        """The right answer, int32."""

    def is_asked(self, state, params) -> jax.Array:
        """Whether an answer counts now, bool."""
        del params
        return state.time >= 0

    def num_asked(self, params) -> jax.Array:
        """Answers of an episode that count, int32."""
        return params.num_cards

    def num_steps(self, params) -> jax.Array:
        """Env steps of an episode, int32."""
        return params.num_cards

    def first(self, words, params):
        nothing = jnp.zeros_like(words[0])
        zero = nothing.astype(jnp.int32)
        return self._deal(words, CardState(zero, zero, nothing, zero, zero - 1), params)._replace(time=zero)

    def advance(self, words, state, action, params):
        asked = self.is_asked(state, params)
        right = action == self.answer(state, params)
        worth = 1.0 / self.num_asked(params).astype(jnp.float32)
        reward = jnp.where(asked, jnp.where(right, worth, -worth), 0.0)
        after = self._deal(words, state, params)
        after = after._replace(num_right=state.num_right + (asked & right).astype(jnp.int32))
        return after, reward, state.time + 1 >= self.num_steps(params)

    def _deal(self, words, state, params):
        """The next card and question."""
        card = below(words[0], SUITS)
        past = self.remember(state, card, params)
        return state._replace(card=card, query=below(words[1], SUITS), past=past)

    def hidden(self, state, params):
        return (self.answer(state, params).astype(jnp.float32),)

    def is_face_up(self, state, params) -> jax.Array:
        """Whether the card on the table is shown, bool."""
        del params
        return state.time >= 0

    def render(self, state, params):
        card = int(state.card) if self.is_face_up(state, params) else None
        query = int(state.query) if self.asks_suit else None
        score = f"{int(state.num_right)} right after {int(state.time)} of {int(self.num_steps(params))} steps"
        return pictures.paint_cards(card, query, int(self.answer(state, params)), score)

    def invariants(self, state, params):
        of_suits = (state.card >= 0) & (state.card < SUITS) & (state.num_right <= state.time)
        return super().invariants(state, params) | {"of_suits": of_suits}


def _suit(past: jax.Array, number: jax.Array) -> jax.Array:
    """The suit, int32, of the card `number` before the last one of `past`."""
    return ((past >> (SUIT_BITS * number).astype(jnp.uint32)) & jnp.uint32(SUITS - 1)).astype(jnp.int32)


def _push(past: jax.Array, card: jax.Array) -> jax.Array:
    return (past << jnp.uint32(SUIT_BITS)) | card.astype(jnp.uint32)


class RepeatFirst(Cards):
    """Say the suit of the first card at every card; the best return is 1."""

    shown_spec = (
        Component("suit", "category", cardinality=SUITS),
        Component("start", "category", cardinality=2),
    )

    def remember(self, state, card, params):
        del params
        return jnp.where(state.time < 0, card.astype(jnp.uint32), state.past)

    def answer(self, state, params):
        del params
        return state.past.astype(jnp.int32)

    def shown(self, state, params):
        del params
        return state.card.astype(jnp.float32), (state.time == 0).astype(jnp.float32)


class RepeatPrevious(Cards):
    """Say the suit of the card `lag` cards ago, once there is one; the best return is 1."""

    defaults = RepeatPreviousParams()
    shown_spec = (Component("suit", "category", cardinality=SUITS),)

    @classmethod
    def contradiction(cls, task):
        fits = task.lag < min(MOST_CARDS, task.num_cards)
        return "" if fits else f"lag below num_cards and {MOST_CARDS}"

    def remember(self, state, card, params):
        del params
        return _push(state.past, card)

    def answer(self, state, params):
        return _suit(state.past, params.lag)

    def is_asked(self, state, params):
        return state.time >= params.lag

    def num_asked(self, params):
        return params.num_cards - params.lag

    def shown(self, state, params):
        del params
        return (state.card.astype(jnp.float32),)


class CountRecall(Cards):
    """Say how many cards of the suit that is asked for have been shown; the best return is 1."""

    asks_suit = True
    shown_spec = (
        Component("suit", "category", cardinality=SUITS),
        Component("asked suit", "category", cardinality=SUITS),
    )

    @classmethod
    def contradiction(cls, task):
        most = 2**COUNT_BITS - 1
        return "" if task.num_cards <= most else f"num_cards at most {most}"

    def specify(self, task):
        self.num_answers = int(task.num_cards) + 1
        super().specify(task)

    def remember(self, state, card, params):
        del params
        return state.past + (jnp.uint32(1) << (COUNT_BITS * card).astype(jnp.uint32))

    def answer(self, state, params):
        del params
        counts = state.past >> (COUNT_BITS * state.query).astype(jnp.uint32)
        return (counts & jnp.uint32(2**COUNT_BITS - 1)).astype(jnp.int32)

    def shown(self, state, params):
        del params
        return state.card.astype(jnp.float32), state.query.astype(jnp.float32)


class Autoencode(Cards):
    """Watch some cards, then say their suits, the last one first; the best return is 1."""

    defaults = AutoencodeParams()
    shown_spec = (
        Component("suit", "category", cardinality=SUITS + 1),  # the last: face down
        Component("play back", "category", cardinality=2),
    )

    @classmethod
    def contradiction(cls, task):
        return "" if task.num_cards <= MOST_CARDS else f"num_cards at most {MOST_CARDS}"

    def remember(self, state, card, params):
        is_shown = state.time + 1 < params.num_cards
        return jnp.where(is_shown, _push(state.past, card), state.past)

    def answer(self, state, params):
        return _suit(state.past, jnp.maximum(state.time - params.num_cards, 0))

    def is_asked(self, state, params):
        return state.time >= params.num_cards

    def is_face_up(self, state, params):
        return ~self.is_asked(state, params)

    def num_steps(self, params):
        return 2 * params.num_cards

    def shown(self, state, params):
        back = self.is_asked(state, params)
        return jnp.where(back, SUITS, state.card).astype(jnp.float32), back.astype(jnp.float32)
