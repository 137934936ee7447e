"""From a recipe to outputs: resolve, load, run, save, replay."""
