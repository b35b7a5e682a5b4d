"""How the bundled model is made: data, training, evaluation. Nothing here runs in a render."""
