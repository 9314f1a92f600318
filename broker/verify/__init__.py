"""Checking answers before they are returned (`sla.verify`), and buying again what fails."""
