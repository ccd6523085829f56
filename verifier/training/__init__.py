"""Training: one loop, what is trained as a table of architectures, how as regimes."""
