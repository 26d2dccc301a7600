"""What runs in the environment in which lmms-eval is installed, as `PYTHON FOLDER`: it imports nothing of ThinkIMG."""
