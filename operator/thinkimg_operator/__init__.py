"""The Kubernetes operator of ThinkIMG. An empty shell until the operator issue lands."""
