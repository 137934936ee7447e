"""The mathematics of sampling a diffusion model: samplers, schedules, noise, guidance and prompt weighting."""
