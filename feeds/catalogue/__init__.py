"""Price lists: a pure `parse(bytes)` a source, a judge of changes, and the way to the market."""
