"""How the bundled models are made: data, training, evaluation. Nothing here runs in a render."""
