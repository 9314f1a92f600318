"""Attempts are evidence of when they were sent, not of when they ended."""

from __future__ import annotations

from bidding.estimators.circuit import Circuit, CircuitParams


def _circuit() -> Circuit:
    return Circuit(CircuitParams(jitter_share=0.0))


def test_old_calls_coming_back_well_do_not_keep_a_circuit_closed() -> None:
    circuit = _circuit()
    for i in range(5):
        circuit.record("failure", 10.0 + i * 0.1, sent_at_s=9.9 + i * 0.1)
        circuit.record("success", 10.05 + i * 0.1, sent_at_s=9.0)
    assert circuit.health(10.5) == "open"


def test_a_later_call_coming_back_well_ends_the_run() -> None:
    circuit = _circuit()
    for i in range(20):
        circuit.record("failure", 10.0 + i * 0.2, sent_at_s=10.0 + i * 0.2)
        circuit.record("success", 10.1 + i * 0.2, sent_at_s=10.1 + i * 0.2)
    assert circuit.health(15.0) == "closed"


def test_a_probe_that_hung_has_waited_already() -> None:
    circuit = _circuit()
    for _ in range(5):
        circuit.record("failure", 10.0)
    at_s = circuit.retry_at_s
    circuit.sent(at_s)
    circuit.record("failure", at_s + 3.0, sent_at_s=at_s)
    assert circuit.retry_at_s < at_s + 3.1
    circuit.sent(circuit.retry_at_s)
    circuit.record("failure", circuit.retry_at_s, sent_at_s=circuit.retry_at_s)
    assert circuit.retry_at_s > at_s + 3.9
