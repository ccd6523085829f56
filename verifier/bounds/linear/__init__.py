"""Linear bound propagation (CROWN and its optimised slopes), in float64 with every rounding bounded."""
