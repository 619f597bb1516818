"""The bundled demo model: its language, its training, its measure, its files."""
