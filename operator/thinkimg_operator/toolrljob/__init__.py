"""ToolRLJob: `render` (what should exist), `attempts` (what failed, and what follows), `stages` (what is next), and
`reconcile`, which observes, lets the pure parts decide, and writes."""
