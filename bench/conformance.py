"""What every encoder and every projector must hold to, whoever wrote it: run this over your own.

>>> from bench.conformance import check_encoder, check_projector
>>> check_encoder(MyEncoder())
>>> check_projector(MyProjector())

molgraft's tests run all checks over every registered component.
"""

from __future__ import annotations

from bench.conformance_encoders import ENCODER_CHECKS, check_encoder
from bench.conformance_projectors import PROJECTOR_CHECKS, check_projector
from bench.conformance_tools import ConformanceError

__all__ = ["ENCODER_CHECKS", "PROJECTOR_CHECKS", "ConformanceError", "check_encoder", "check_projector"]
