"""View *execution*: how far the execution of an op in floating point lies from its real value.

What `execution_error` returns bounds |fl(op)(x + d) - op(x)| for every x in the boxes and every |d| <= the errors of
the inputs, where fl(op) is the op in an arithmetic, in any order of summation (`encoders.arithmetic`).
"""

from collections.abc import Sequence
from typing import ClassVar, Self

from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box


class Executed:
    """What has a value in real arithmetic and executions that come near it; by default nothing is known of these."""

    kind: ClassVar[str]

    @property
    def bounds_execution(self) -> bool:
        """Whether `execution_error` knows how far an execution may err."""
        return type(self).execution_error is not Executed.execution_error

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return how far an execution lies from the real value at most, `(batch, *shape)`, rounded up; or infinity.

        boxes: of the real values of the inputs. errors: of the inputs, of the shape of the boxes. float64, on float64
        weights that the arithmetic holds. TypeError where the op does not know.
        """
        raise TypeError(f"op {self.kind!r} does not know how far its execution may err")

    def order_error(self, inputs: Box, error: Tensor, arithmetic: Arithmetic, one: bool) -> Tensor | None:
        """Return how much nearer inputs may be, as executed, and yet change places among the executed outputs.

        Of an op that keeps their order in real arithmetic, behind which classes are compared. inputs: boxes `(batch,
        classes)` of the real ones; error: of these, of the same shape, as is the result, a share for each of two that
        are compared. one: there is one output, compared with that of zero. None: any two may come to tie.
        """
        return None

    def raised(self, added: Tensor) -> Self | None:
        """Return the same op with numbers of float64 added to its outputs, rounded away from zero; None: it cannot.

        added: `(outputs,)`, of an op with as many outputs.
        """
        return None
