"""How far an exported, lowered or built network is from PyTorch, and where it begins to be."""
