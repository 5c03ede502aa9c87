"""Training a denoiser: losses, times, schedules, averages and the loop."""
