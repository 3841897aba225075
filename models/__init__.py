"""The GANs: one class, its recipes, the layers and the latent distributions they are made of."""
