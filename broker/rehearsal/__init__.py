"""The paper market without sockets or clocks: real auction, real estimators, known truth.

For what must be judged against the truth and many times over: what-if reports and trials of
params. Thousands of requests a second; a rehearsal is a pure function of its seed.
"""
