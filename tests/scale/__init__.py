"""A hundred million attempts: loaded by the engine itself, then every report timed on them."""
