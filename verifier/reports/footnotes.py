"""What stands below a table wherever a word in it needs to be explained."""

EXECUTION_ONLY = (
    "execution only: inputs, certified or open, with a point within epsilon that gets another class by the rounding of "
    "the model's execution alone"
)
TRUSTED = "safe by the word of a solver alone, which certifies nothing"
