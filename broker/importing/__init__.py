"""From other gateways' configurations to ours."""
