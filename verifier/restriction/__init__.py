"""Bastani's linear program (2016): the nearest input of another class on which a frozen network stays true."""
