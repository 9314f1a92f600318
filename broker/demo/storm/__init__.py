"""The fault storm: three sellers of one model, the cheapest broken in turn in every way we know."""
