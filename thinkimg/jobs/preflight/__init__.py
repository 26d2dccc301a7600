"""Before the first stage: what a run would find out late is looked for now, and everything found is said at once.

| File | What it looks at |
|---|---|
| `findings.py` | what is to run, and one thing that is wrong with it |
| `data.py` | every picture and every question; ready-made trajectories |
| `models.py` | the model's configuration and processor; the layers that adapters name |
| `training.py` | the configuration of every training stage, built as the stage builds it |
| `rewards.py` | every reward, called on trial trajectories |
| `endpoints.py` | planners and judges, asked once |
| `tools.py` | what tool servers need to start; what a planner's chains call |
| `disk.py` | room for the models and checkpoints |
| `check.py` | all of them |
| `process.py` | the same in a process of its own |
"""
