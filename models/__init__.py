"""The GANs: one class, its recipes, layers and latent distributions."""
