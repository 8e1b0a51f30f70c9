"""Pure networks, one file per architecture and the blocks they share. Imports torch and lumen's diffusion only."""
