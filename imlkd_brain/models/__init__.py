"""Speaker models: their code, and the folder they are stored in."""
