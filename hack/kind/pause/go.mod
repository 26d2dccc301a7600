module thinkimg.dev/hack/kind/pause

go 1.26.0
