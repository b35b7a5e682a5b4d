"""Frames that follow from the frame before: moved, matched in colour, kept coherent.

    warp.py         a picture translated, enlarged and turned
    spline.py       a picture between its pixels
    color_match.py  a picture's colours brought back to a reference's
    lab.py          sRGB to CIE L*a*b* and back
    coherence.py    latents pulled to a reference that follows them

All of it is pure; `docs/motion.md` has the formulas and the order in which a chain applies them.
"""

from giffusion.engine.motion.coherence import Coherence, scale_limits
from giffusion.engine.motion.color_match import ColorMatch
from giffusion.engine.motion.warp import Motion, warp

__all__ = ["Coherence", "ColorMatch", "Motion", "scale_limits", "warp"]
