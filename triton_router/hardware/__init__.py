"""What this machine is, what it can do, and what it draws."""
