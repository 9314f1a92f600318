"""The demo: traffic in several SLA classes on the paper market, faults, and what came of it.

classes.py   the SLA classes and their share of traffic
traffic.py   requests through the real `openai` client, checked and reported back
tally.py     what was bought against what always-best and always-cheapest would have cost
faults.py    the slow-down and the death, and how long the market took to get over them
screen.py    the live terminal
run.py       all of it, in order
"""
