"""For apps that call models themselves: tell a broker how their calls went."""
