"""Every sampler with a model that knows the picture: whatever the settings, it ends on it."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from giffusion.engine.sampler_names import SAMPLERS, split_sampler
from giffusion.engine.sampling import sampler_table
from giffusion.engine.schedule import FloatArray, NoiseSchedule
from tests.engine.samplers.reference import SPACINGS, config_of, noises_for, walk_table

LEFT_OUT = ("deis", "lcm", "pndms")
"""DEIS and LCM do not end at no noise; PLMS averages outputs, exactly only where eps is one."""
ROUNDED = ("dpm-karras", "dpm++2m-karras", "unipc-karras")
"""Their timesteps do not tell their levels."""


@given(
    sampler=st.sampled_from(
        [s for s in SAMPLERS if s not in ROUNDED and split_sampler(s)[0] not in LEFT_OUT]
    ),
    spacing=st.sampled_from(SPACINGS),
    prediction=st.sampled_from(["epsilon", "v_prediction", "sample"]),
    order=st.integers(1, 3),
    steps=st.integers(1, 60),
    strength=st.floats(0.01, 1.0),
)
def test_a_model_that_knows_the_picture_ends_on_it(
    sampler: str, spacing: str, prediction: str, order: int, steps: int, strength: float
) -> None:
    assume(int(steps * strength) > 0)
    config = config_of(
        timestep_spacing=spacing,
        prediction_type=prediction,
        set_alpha_to_one=True,
        steps_offset=0,
        solver_order=order,
    )
    schedule = NoiseSchedule.from_config(config)
    table = sampler_table(sampler, schedule, steps, strength)
    # DDIM ends by its stride, which rounding of trailing timesteps can leave at timestep 0.
    assume(split_sampler(sampler)[0] != "ddim" or table.timesteps[-1] < 1000 // steps)
    noises = noises_for(table)
    # Levels between trained ones are interpolated in more than one way; the scale tells which.
    trained = np.log(schedule.sigmas)

    def model(seen: FloatArray, i: int) -> FloatArray:
        sigma = np.exp(np.interp(table.timesteps[i], np.arange(len(trained)), trained))
        if table.scales[i] < 1:
            sigma = np.sqrt(1 / table.scales[i] ** 2 - 1)
        alpha = 1 / np.sqrt(sigma**2 + 1)
        eps = (seen - alpha * noises[0]) / (sigma * alpha)
        outputs: dict[str, FloatArray] = {
            "epsilon": eps,
            "sample": noises[0],
            "v_prediction": alpha * (eps - sigma * noises[0]),
        }
        return outputs[prediction]

    np.testing.assert_allclose(walk_table(table, model, noises).latents[-1], noises[0], atol=1e-6)
