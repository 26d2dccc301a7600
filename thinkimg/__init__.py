"""ThinkIMG: teach vision-language models to think with images."""

__version__ = "0.1.0"
