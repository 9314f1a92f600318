"""Providers' own status pages: a pure `parse(bytes)` a format, and who is concerned by what."""
