"""The market page: static files, no build step. What it shows comes from the public API alone."""
