"""What the other folders stand on: errors, whole files, the terminal, pictures."""
