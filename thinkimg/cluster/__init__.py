"""ToolRLJobs on a cluster, seen from outside: apply one, see how far it is, read its logs. The extra `cluster`."""
