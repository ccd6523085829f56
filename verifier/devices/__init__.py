"""Devices beside the processor: which one serves, what its arithmetic must be, and batches that its memory holds.

| question | file |
| --- | --- |
| which device a choice means, and whether it is there | `choice` |
| from which work on a device is faster than the processor, measured | `break_even` |
| whether sums and products on it are what bounds of roundings are about | `arithmetic` |
| a batch that its memory does not hold, in parts | `parts` |
"""
