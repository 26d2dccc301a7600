"""Weights of tools on this machine: which there are, where they lie, how they come here. No torch here.

| Module | What it does |
|---|---|
| `catalogue.py` | the weights that our backends take by default: address and licence |
| `repository.py` | how weights are named: `org/name`, or a file of it |
| `store.py` | where they lie on this machine |
| `locate.py` | what loads weights asks here; what is said when they are not on this machine |
| `hub.py` | what a repository of the hub holds |
| `download.py` | one file over HTTP, whole or not at all, and further where it stopped |
| `fetch.py` | all files of some weights, with a record of their SHA-256; whether they still have it |

What loads weights never asks a network.
"""
