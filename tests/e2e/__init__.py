"""End to end: one whole market, and the apps and operators that use it."""
