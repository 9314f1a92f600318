"""The paper market: simulated providers speaking real wire formats over real HTTP.

For trials, demos and tests: every seller listens on a port of its own, answers OpenAI
chat-completions or Anthropic Messages requests (streamed or not), bills usage at real list
prices, is slow as real ones were measured to be, and is right as often as its model was
measured to be. A control port makes any of them fail in every way a seller can fail.

Entry points
------------
serve.PaperMarket(*, seed=0, time_scale=1.0, api_key="sk-paper", host="127.0.0.1", providers=None)
    await .start(); await .stop()
    .catalogue : bidding.market.Catalogue, base_url and status_url with the real ports
    .control_url : str
    await .set_faults(provider, [FaultSpec(...)], model=None)
    await .clear_faults(provider, model=None)
    .ledgers() -> dict[str, LedgerTotals]
`python -m broker.paper --port-file F`
    the same as a process of its own; prints one JSON line when ready
tasks.generate(task, seed) -> TaskItem; tasks.check(item, text) -> bool; tasks.TASKS
behaviour.Behaviour(data, seed).counterfactual(model, item) -> Counterfactual
faults.Fault (every fault by name), faults.FaultSpec
"""
