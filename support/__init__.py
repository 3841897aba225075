"""Foundations of the other folders: errors, atomic files, the terminal, images."""
