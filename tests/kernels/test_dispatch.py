"""Which implementation runs, who says so, and where it stands."""

import logging

import jax.numpy as jnp
import pytest
from machines import num_calls

import kernels
from kernels import dispatch

KERNEL = dispatch.Kernel("none")


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.setattr(dispatch, "_said", set())


def test_the_reference_runs_where_nothing_was_measured(monkeypatch):
    assert dispatch.choose(KERNEL) == "xla"
    kind = dispatch.jax.devices()[0].device_kind
    assert dispatch.choose(KERNEL._replace(wins_on=(kind,))) == "pallas"


def test_a_variable_forces_one_for_a_whole_run_and_an_argument_stands_above_it(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    assert dispatch.choose(KERNEL) == "interpret"
    assert dispatch.choose(KERNEL, "xla") == "xla"
    assert kernels.choices() == {kernel.name: "interpret" for kernel in kernels.ALL}
    monkeypatch.setenv(dispatch.VARIABLE, "auto")
    assert dispatch.choose(KERNEL) == "xla"


def test_the_variable_has_words_by_kernel(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "interpret, scan=xla,rollout=auto")
    assert kernels.choices() == {k.name: "interpret" for k in kernels.ALL} | {"scan": "xla", "rollout": "xla"}
    monkeypatch.setenv(dispatch.VARIABLE, "rollout=pallas")
    assert kernels.choices() == {k.name: "xla" for k in kernels.ALL} | {"rollout": "pallas"}
    monkeypatch.setenv(dispatch.VARIABLE, "none=own")
    assert dispatch.choose(KERNEL._replace(also=("own",))) == "own"
    with pytest.raises(
        ValueError, match=r"KERNELS: got 'own', expected one of .*interpret for the kernel none"
    ):
        dispatch.choose(KERNEL)
    with pytest.raises(
        ValueError, match="KERNELS: got none, expected some of scan, linear_recurrence, rollout"
    ):
        kernels.choices()
    monkeypatch.setenv(dispatch.VARIABLE, "scan=xla,scan=pallas")
    with pytest.raises(ValueError, match="got two words for scan"):
        kernels.choices()


def test_kernels_that_are_scans_speak_in_their_own_names(caplog):
    ones = jnp.ones((2, 3))
    numbers = kernels.linear_recurrence.Complex(ones, ones)
    first = kernels.linear_recurrence.Complex(ones[0], ones[0])
    with caplog.at_level(logging.INFO, logger="kernels.dispatch"):
        kernels.linear_recurrence.recurrence(numbers, numbers, first, implementation="pallas")
        kernels.rollout.rollout(
            lambda state, lane, seed: (state, state), ones[0], jnp.arange(2), implementation="pallas"
        )
    assert {r.message.split(":")[0] for r in caplog.records} == {"kernel linear_recurrence", "kernel rollout"}


def test_a_gpu_before_hopper_takes_the_reference(monkeypatch):
    monkeypatch.setattr(dispatch, "platform", lambda: dispatch.OLDER)
    ones = jnp.ones((4, 3))
    run = lambda: kernels.scan.scan(lambda c, x: (c + x, c), ones[0], ones, implementation="pallas")  # noqa: E731
    assert num_calls(run, platform="cuda") == 0


def test_what_is_no_implementation_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="implementation: got 'triton', expected one of auto, xla"):
        dispatch.choose(KERNEL, "triton")
    monkeypatch.setenv(dispatch.VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"{dispatch.VARIABLE}: got 'fast', expected one of"):
        dispatch.choose(KERNEL)


def test_a_choice_is_said_once_and_a_platform_without_the_kernel_warns_once(caplog):
    with caplog.at_level(logging.INFO, logger="kernels.dispatch"):
        for _ in range(2):
            dispatch.choose(KERNEL, "pallas")
            assert dispatch.by_platform(KERNEL, {"cuda": lambda x: x + 1}, lambda x: x, 3) == 3
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "kernel none: pallas"),
        ("WARNING", "kernel none: none for cpu, where the reference runs"),
    ]
