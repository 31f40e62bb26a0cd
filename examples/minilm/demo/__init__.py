"""The demonstration that ``scripts/demo`` runs: one real model, from its weights to routed, measured requests."""
