"""The circuit, by a clock that the tests turn."""

import threading

import pytest
from truthgraph.errors import InferenceUnavailable
from truthgraph.inference.circuit import Circuit


class Clock:
    """Stands still until it is turned."""

    now = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """One for each test."""
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    """Opens after three failures, for ten seconds."""
    return Circuit(3, 10, clock)


def _fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        circuit.leave(circuit.enter(), "it is down")


def test_it_opens_after_failures_in_a_row(circuit: Circuit) -> None:
    _fail(circuit, 2)
    circuit.leave(circuit.enter())
    _fail(circuit, 2)
    assert (circuit.state, circuit.reason) == ("closed", None)
    _fail(circuit, 1)
    assert (circuit.state, circuit.reason) == ("open", "it is down; it failed 3 times in a row")


def test_open_it_refuses_with_the_reason_and_the_time_that_is_left(circuit: Circuit, clock: Clock) -> None:
    _fail(circuit, 3)
    clock.now += 2.5
    with pytest.raises(
        InferenceUnavailable, match="it is down; it failed 3 times in a row; it is asked again in 8 s"
    ) as e:
        circuit.enter()
    assert e.value.retry_after == 8


def test_a_trial_that_succeeds_closes_it(circuit: Circuit, clock: Clock) -> None:
    _fail(circuit, 3)
    clock.now += 10
    assert (circuit.state, circuit.reason) == ("half-open", "it is down; it failed 3 times in a row")
    trial = circuit.enter()
    with pytest.raises(InferenceUnavailable, match="one question is trying it again now") as raised:
        circuit.enter()
    assert raised.value.retry_after == 1
    circuit.leave(trial)
    assert (circuit.state, circuit.reason) == ("closed", None)
    _fail(circuit, 2)
    assert circuit.state == "closed"


def test_a_trial_that_fails_opens_it_again(circuit: Circuit, clock: Clock) -> None:
    _fail(circuit, 3)
    clock.now += 10
    _fail(circuit, 1)
    assert (circuit.state, circuit.reason) == ("open", "it is down; it failed 4 times in a row")
    clock.now += 9.9
    with pytest.raises(InferenceUnavailable):
        circuit.enter()
    clock.now += 0.1
    circuit.leave(circuit.enter())
    assert circuit.state == "closed"


def test_what_was_asked_before_says_nothing_of_now(circuit: Circuit, clock: Clock) -> None:
    early, late = circuit.enter(), circuit.enter()
    _fail(circuit, 3)
    circuit.leave(early)
    assert circuit.reason is not None
    clock.now += 10
    trial = circuit.enter()
    circuit.leave(late, "it was down")
    circuit.leave(trial)
    assert circuit.state == "closed"


def test_of_many_threads_one_is_the_trial(circuit: Circuit, clock: Clock) -> None:
    _fail(circuit, 3)
    clock.now += 10
    barrier = threading.Barrier(50)
    entered: list[int] = []
    refused: list[InferenceUnavailable] = []

    def ask() -> None:
        barrier.wait()
        try:
            entered.append(circuit.enter())
        except InferenceUnavailable as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 49)
