"""Benchmarks of this project; ``scripts/bench`` runs them."""
