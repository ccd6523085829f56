"""Formulations: how a network becomes linear. *restrict* (INNER) keeps the pieces that are active at a point."""
