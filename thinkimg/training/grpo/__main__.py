"""`python -m thinkimg.training.grpo` with OpenThinkIMG's flags: see `thinkimg.openthinkimg.train_flags`."""

from thinkimg.openthinkimg.train_flags import main

if __name__ == "__main__":
    main()
