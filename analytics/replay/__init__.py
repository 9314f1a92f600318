"""Real markets through the real `bidding/`: data, policies side by side, figures."""
