"""A whole experiment at full size without a network and without anybody's weights: `make rehearsal`.

The model has the exact shape of one that people train (`shapes`), random weights and a tokenizer made here
(`checkpoint`). `thinkimg run` trains it with live tools (`experiment`); since random weights would call no tool, what
the model says is chosen by a script, while it computes all probabilities itself (`forced`). The run is killed after
RL's first step and goes on; its result is exported and compared with what plain transformers makes of it (`compare`).
Memory and seconds of every phase are measured from outside (`measure`).
"""
