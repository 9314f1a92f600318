"""How facts are kept, asked and replayed. For analysts: `analytics.client()`."""

from analytics.notebook import client as client
