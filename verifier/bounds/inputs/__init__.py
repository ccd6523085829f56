"""Branch and bound over the box of inputs: for networks of few inputs, of any ops that have linear bounds."""
