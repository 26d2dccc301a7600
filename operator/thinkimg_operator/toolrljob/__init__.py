"""ToolRLJob: `reconcile` observes the cluster, `decision` decides by the rules in the files beside it, `render` says
what objects look like; then `reconcile` writes."""
