"""`python -m thinkimg.cli`: what runners and torchrun start."""

from thinkimg.cli.app import main

if __name__ == "__main__":
    main()
