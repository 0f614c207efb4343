"""What an operator would look at, one check after the other, and what can safely be mended."""
