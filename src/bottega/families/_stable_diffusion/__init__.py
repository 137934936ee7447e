"""What Stable Diffusion 1, 2 and XL share: recognition by structure, names, networks and loading."""
