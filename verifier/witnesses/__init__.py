"""What makes a point a witness: replayed in the user's model, unsafe in real arithmetic, as near as bisection gets."""
